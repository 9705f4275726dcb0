//! What did the client call? One line for each endpoint, and nothing else says what they are.

use http::Method;

use super::Stored;

/// What the client called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/audio/speech`
    Speech,
    /// `POST /v1/audio/transcriptions`
    Transcriptions,
    /// `POST /v1/audio/translations`
    Translations,
    /// `POST /v1/images/generations`
    ImageGenerations,
    /// `POST /v1/images/edits`
    ImageEdits,
    /// `POST /v1/moderations`
    Moderations,
    /// `POST /v1/rerank`
    Rerank,
    /// `GET /v1/responses/{id}` and what else is asked of a response that is stored
    Response,
    /// `GET /v1/models`
    Models,
    /// `GET /v1/models/{id}`
    Model,
    /// `GET /v1/audio/voices`
    Voices,
    /// `GET /v1/audio/voices/{id}`
    Voice,
    /// `GET /v1/usage`
    Usage,
    /// `GET /health` and `/health/live`
    Live,
    /// `GET /health/ready`
    Ready,
}

/// How many endpoints ask a model: the first ones of [`Endpoint`].
pub const ASKING: usize = 11;

/// How a request's body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As a JSON object.
    Json,
    /// As form data, `multipart/form-data`.
    Data,
    /// As either of them.
    Both,
    /// There is none.
    Nothing,
}

/// What an answer is, where it is no stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// A JSON object.
    Json,
    /// A JSON object, or plain text, as the client asks.
    Text,
    /// Sound: bytes that are played while they come.
    Sound,
}

/// What an answer gives that is billed by the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// Nothing.
    Nothing,
    /// Text, as long as the request allows.
    Text,
    /// As much as the model itself may give: no request limits it.
    Any,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It writes: chats, completions and responses.
    Chat,
    /// It makes vectors of texts.
    Embedding,
    /// It speaks.
    Speech,
    /// It writes down what it hears.
    Transcription,
    /// It makes pictures, or changes them.
    Image,
    /// It says whether something is harmful.
    Moderation,
    /// It sorts documents by what is asked.
    Rerank,
}

/// What is known of an endpoint.
struct About {
    endpoint: Endpoint,
    name: &'static str,
    /// Below `/v1`, and below a provider's base URL.
    path: &'static str,
    kind: Option<Kind>,
    form: Form,
    whole: Whole,
    gives: Gives,
    streams: bool,
}

impl About {
    /// Of one that answers JSON, and streams on request.
    const fn writes(endpoint: Endpoint, name: &'static str, path: &'static str) -> Self {
        Self {
            endpoint,
            name,
            path,
            kind: Some(Kind::Chat),
            form: Form::Json,
            whole: Whole::Json,
            gives: Gives::Text,
            streams: true,
        }
    }

    /// Of one that answers JSON at once, about what it was given.
    const fn judges(
        endpoint: Endpoint,
        name: &'static str,
        path: &'static str,
        kind: Kind,
    ) -> Self {
        Self {
            kind: Some(kind),
            gives: Gives::Nothing,
            streams: false,
            ..Self::writes(endpoint, name, path)
        }
    }

    /// Of one that writes down what it is sent to hear.
    const fn hears(endpoint: Endpoint, name: &'static str, path: &'static str) -> Self {
        Self {
            kind: Some(Kind::Transcription),
            form: Form::Data,
            whole: Whole::Text,
            gives: Gives::Any,
            ..Self::writes(endpoint, name, path)
        }
    }

    /// Of one that asks no model.
    const fn of_ours(endpoint: Endpoint, name: &'static str, path: &'static str) -> Self {
        Self {
            kind: None,
            form: Form::Nothing,
            gives: Gives::Nothing,
            streams: false,
            ..Self::writes(endpoint, name, path)
        }
    }
}

/// All of them, in the order of [`Endpoint`].
const ALL: [About; 19] = [
    About::writes(
        Endpoint::ChatCompletions,
        "chat_completions",
        "/chat/completions",
    ),
    About::writes(Endpoint::Completions, "completions", "/completions"),
    About::judges(
        Endpoint::Embeddings,
        "embeddings",
        "/embeddings",
        Kind::Embedding,
    ),
    About::writes(Endpoint::Responses, "responses", "/responses"),
    About {
        kind: Some(Kind::Speech),
        whole: Whole::Sound,
        gives: Gives::Any,
        ..About::writes(Endpoint::Speech, "audio_speech", "/audio/speech")
    },
    About::hears(
        Endpoint::Transcriptions,
        "audio_transcriptions",
        "/audio/transcriptions",
    ),
    About::hears(
        Endpoint::Translations,
        "audio_translations",
        "/audio/translations",
    ),
    About {
        kind: Some(Kind::Image),
        gives: Gives::Any,
        ..About::writes(
            Endpoint::ImageGenerations,
            "images_generations",
            "/images/generations",
        )
    },
    About {
        kind: Some(Kind::Image),
        form: Form::Both,
        gives: Gives::Any,
        ..About::writes(Endpoint::ImageEdits, "images_edits", "/images/edits")
    },
    About::judges(
        Endpoint::Moderations,
        "moderations",
        "/moderations",
        Kind::Moderation,
    ),
    About::judges(Endpoint::Rerank, "rerank", "/rerank", Kind::Rerank),
    About::of_ours(Endpoint::Response, "responses", "/responses"),
    About::of_ours(Endpoint::Models, "models", "/models"),
    About::of_ours(Endpoint::Model, "models", "/models"),
    About::of_ours(Endpoint::Voices, "voices", "/audio/voices"),
    About::of_ours(Endpoint::Voice, "voices", "/audio/voices"),
    About::of_ours(Endpoint::Usage, "usage", "/usage"),
    About::of_ours(Endpoint::Live, "health", "/health"),
    About::of_ours(Endpoint::Ready, "health", "/health/ready"),
];

/// Why a request line names no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// The path is one of ours, but not with this method.
    #[error("this path takes {0} only")]
    Method(&'static str),
    /// Not a path of ours.
    #[error("there is nothing at this path; there are {}", listed())]
    Path,
}

/// Where one can ask, for a person.
fn listed() -> String {
    let paths = asking().map(|about| about.path);
    let paths = std::iter::once("/models").chain(paths);
    let paths: Vec<String> = paths.map(|path| format!("/v1{path}")).collect();
    paths.join(", ")
}

/// Those that ask a model.
fn asking() -> impl Iterator<Item = &'static About> {
    ALL.iter().take(ASKING)
}

impl Endpoint {
    /// Reads a request line. Each path of `/v1` also goes without it.
    pub fn of(method: &Method, path: &str) -> Result<Self, NoEndpoint> {
        if let Some(stored) = Stored::at(path) {
            let takes = NoEndpoint::Method(stored.methods());
            return stored.takes(method).then_some(Self::Response).ok_or(takes);
        }
        let path = path.strip_prefix("/v1").unwrap_or(path);
        let endpoint = match path {
            "/health/live" => Self::Live,
            _ => {
                let of_many = [(Self::Models, Self::Model), (Self::Voices, Self::Voice)];
                let one = of_many.into_iter().find_map(|(all, one)| {
                    let id = path.strip_prefix(all.path())?.strip_prefix('/')?;
                    (!id.is_empty()).then_some(one)
                });
                let named = || ALL.iter().find(|about| about.path == path);
                one.or_else(|| Some(named()?.endpoint))
                    .ok_or(NoEndpoint::Path)?
            }
        };
        let takes = match endpoint.form() {
            Form::Nothing => Method::GET,
            _ => Method::POST,
        };
        match takes {
            takes if takes == *method => Ok(endpoint),
            Method::GET => Err(NoEndpoint::Method("GET")),
            _ => Err(NoEndpoint::Method("POST")),
        }
    }

    /// Those that ask a model, in the order of their numbers.
    pub fn asking() -> impl Iterator<Item = Self> {
        asking().map(|about| about.endpoint)
    }

    /// Its number among those that ask a model. None: it asks none.
    pub fn number(self) -> Option<usize> {
        let number = self as usize;
        (number < ASKING).then_some(number)
    }

    fn about(self) -> &'static About {
        let [.., last] = &ALL;
        ALL.get(self as usize).unwrap_or(last)
    }

    /// Its name in labels and log lines.
    pub fn name(self) -> &'static str {
        self.about().name
    }

    /// Where it lies, below `/v1` and below the base URL of a provider that speaks `OpenAI`'s format.
    pub fn path(self) -> &'static str {
        self.about().path
    }

    /// Its path, where what differs from one request to the next has a name: `/v1/models/{id}`.
    pub fn route(self) -> String {
        let id = match self {
            Self::Model | Self::Voice | Self::Response => "/{id}",
            _ => "",
        };
        format!("/v1{}{id}", self.path())
    }

    /// The endpoint of that name, of those that ask a model.
    pub fn named(name: &str) -> Option<Self> {
        Self::asking().find(|endpoint| endpoint.name() == name)
    }

    /// Those of ours that a provider is asked for, too, beside what asks a model.
    pub const LISTS: [Self; 2] = [Self::Models, Self::Voices];

    /// What a model has to be for, so that it can be asked here. None: no model is asked.
    pub fn kind(self) -> Option<Kind> {
        self.about().kind
    }

    /// How its requests are written.
    pub fn form(self) -> Form {
        self.about().form
    }

    /// What its answers are.
    pub fn whole(self) -> Whole {
        self.about().whole
    }

    /// What its answers give that is billed by the token.
    pub fn gives(self) -> Gives {
        self.about().gives
    }

    /// Whether the event of a stream that tells the usage must be asked for, and is not for whoever did not ask.
    pub fn hides_usage(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }

    /// Whether its answers can be streams of events.
    pub fn streams(self) -> bool {
        self.about().streams
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Chat,
        Self::Embedding,
        Self::Speech,
        Self::Transcription,
        Self::Image,
        Self::Moderation,
        Self::Rerank,
    ];

    /// Its name, as it is configured and listed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Speech => "speech",
            Self::Transcription => "transcription",
            Self::Image => "image",
            Self::Moderation => "moderation",
            Self::Rerank => "rerank",
        }
    }

    /// Where its models are asked, for a person.
    pub fn paths(self) -> String {
        let own = asking().filter(|about| about.kind == Some(self));
        let paths: Vec<String> = own.map(|about| format!("/v1{}", about.path)).collect();
        paths.join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_go_by_path_and_method() {
        let of = |method: Method, path: &str| Endpoint::of(&method, path);
        assert_eq!(
            of(Method::POST, "/v1/chat/completions"),
            Ok(Endpoint::ChatCompletions)
        );
        assert_eq!(of(Method::POST, "/embeddings"), Ok(Endpoint::Embeddings));
        assert_eq!(
            of(Method::GET, "/v1/models/groq/a%2Fb"),
            Ok(Endpoint::Model)
        );
        assert_eq!(of(Method::GET, "/v1/models"), Ok(Endpoint::Models));
        assert_eq!(of(Method::GET, "/audio/voices"), Ok(Endpoint::Voices));
        assert_eq!(of(Method::GET, "/v1/audio/voices/a/b"), Ok(Endpoint::Voice));
        assert_eq!(
            of(Method::GET, "/v1/responses/resp_1"),
            Ok(Endpoint::Response)
        );
        assert_eq!(
            of(Method::POST, "/v1/responses/resp_1"),
            Err(NoEndpoint::Method("GET, DELETE"))
        );
        assert_eq!(of(Method::GET, "/health"), Ok(Endpoint::Live));
        assert_eq!(of(Method::GET, "/health/live"), Ok(Endpoint::Live));
        assert_eq!(
            of(Method::GET, "/v1/chat/completions"),
            Err(NoEndpoint::Method("POST"))
        );
        assert_eq!(
            of(Method::POST, "/v1/models"),
            Err(NoEndpoint::Method("GET"))
        );
        for path in [
            "/",
            "/v2/models",
            "/v1/models/",
            "/v1/audio/voices/",
            "/v1/chat/completions/",
            "/v1",
            "*",
            "/metrics",
        ] {
            assert_eq!(of(Method::GET, path), Err(NoEndpoint::Path), "{path}");
        }
    }

    #[test]
    fn the_table_has_the_order_of_the_endpoints() {
        for (n, about) in ALL.iter().enumerate() {
            assert_eq!(about.endpoint as usize, n, "{}", about.name);
            assert_eq!(about.endpoint.kind().is_some(), n < ASKING);
            assert_eq!(about.endpoint.number().is_some(), n < ASKING);
        }
        for endpoint in Endpoint::asking() {
            let path = format!("/v1{}", endpoint.path());
            assert_eq!(Endpoint::of(&Method::POST, &path), Ok(endpoint));
            assert_eq!(Endpoint::named(endpoint.name()), Some(endpoint));
        }
        for kind in Kind::ALL {
            assert!(kind.paths().starts_with("/v1/"), "{}", kind.name());
        }
    }

    #[test]
    fn whoever_is_lost_is_told_what_there_is() {
        let lost = Endpoint::of(&Method::POST, "/v1/chat")
            .unwrap_err()
            .to_string();
        assert!(
            lost.contains("/v1/models, /v1/chat/completions, "),
            "{lost}"
        );
        assert!(lost.ends_with("/v1/rerank"), "{lost}");
    }
}
