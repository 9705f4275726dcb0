//! Every endpoint that asks a model, by whatever it may be priced: what is asked there, what that may cost at most, and what
//! it is entered with where nobody tells.

use tollgate::protocol::Endpoint;

use super::form::{form, form_with};

/// What a price is by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By the token. Of output there are as many as the request allows, or none.
    Token,
    /// By the token. Of output there are as many as the target may give: no request limits it.
    Most,
    /// By a unit of its own.
    Unit,
}

/// An endpoint, and what it is priced by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    pub endpoint: Endpoint,
    pub by: By,
}

const fn service(endpoint: Endpoint, by: By) -> Service {
    Service { endpoint, by }
}

/// All of them.
pub const SERVICES: [Service; 17] = [
    service(Endpoint::ChatCompletions, By::Token),
    service(Endpoint::Completions, By::Token),
    service(Endpoint::Embeddings, By::Token),
    service(Endpoint::Responses, By::Token),
    service(Endpoint::Speech, By::Most),
    service(Endpoint::Speech, By::Unit),
    service(Endpoint::Transcriptions, By::Most),
    service(Endpoint::Transcriptions, By::Unit),
    service(Endpoint::Translations, By::Most),
    service(Endpoint::Translations, By::Unit),
    service(Endpoint::ImageGenerations, By::Most),
    service(Endpoint::ImageGenerations, By::Unit),
    service(Endpoint::ImageEdits, By::Most),
    service(Endpoint::ImageEdits, By::Unit),
    service(Endpoint::Moderations, By::Token),
    service(Endpoint::Rerank, By::Token),
    service(Endpoint::Rerank, By::Unit),
];

/// In billionths of a dollar: what a token costs, in and out.
const INPUT: u64 = 1_000;
const OUTPUT: u64 = 5_000;
const PRICE: &str = "price = { input = 1, output = 5 }";

/// The same for a character, a second, a picture and a search.
const UNITS: [u64; 4] = [20_000, 150_000, 130_000, 300_000];
const PRICE_OF_UNITS: &str =
    "price = { characters = 20, seconds = 0.00015, images = 0.00013, searches = 0.0003 }";

/// What a target takes of input whose length nobody knows.
const CONTEXT: u64 = 340;

/// How many pictures are asked for.
pub const PICTURES: u64 = 3;

/// How long a file of sound is, in bytes: a second at the lowest rate there is has 750 of them, one at a usual rate 4,000.
const SOUND: usize = 4_000;

/// So many documents are ranked in three searches.
const DOCUMENTS: usize = 201;

/// What one request used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Tokens.
    pub input: u64,
    pub output: u64,
    /// Of a unit of its own, where it is priced by that.
    pub own: u64,
}

/// What a request begins with that is about a number of seven digits.
fn about(number: u64) -> String {
    format!("#{number:07}")
}

/// The number that a request is about.
pub fn number_in(body: &[u8]) -> u64 {
    let at = body.iter().position(|byte| *byte == b'#').unwrap();
    let digits = std::str::from_utf8(&body[at + 1..at + 8]).unwrap();
    digits.parse().unwrap()
}

/// What is spoken: letters and more, so that characters are no bytes.
fn spoken(number: u64) -> String {
    about(number) + " Grüezi 😀 mitenand"
}

impl By {
    pub const ALL: [Self; 3] = [Self::Token, Self::Most, Self::Unit];

    /// The model that has such a price.
    pub fn model(self) -> &'static str {
        match self {
            Self::Token => "fast",
            Self::Most => "most",
            Self::Unit => "unit",
        }
    }

    /// A target's terms. It gives no more output than so many tokens, where a request does not say.
    pub fn terms(self, limit: u64) -> String {
        match self {
            Self::Token => PRICE.to_owned(),
            Self::Most => format!("{PRICE}, context = {CONTEXT}, max_output = {limit}"),
            Self::Unit => PRICE_OF_UNITS.to_owned(),
        }
    }
}

impl Service {
    /// The one that an entry is of.
    pub fn of(api: &str, model: &str) -> Self {
        let mut all = SERVICES.into_iter();
        let found = all.find(|it| it.endpoint.name() == api && it.by.model() == model);
        found.unwrap_or_else(|| panic!("{api} of {model}"))
    }

    /// Where it lies.
    pub fn path(self) -> String {
        format!("/v1{}", self.endpoint.path())
    }

    /// A request of a model, about a number of seven digits. It is as long as every other with the same limit on output.
    pub fn body(self, model: &str, number: u64, limit: u64, stream: bool) -> Vec<u8> {
        let about = about(number);
        let streams = match stream {
            true => r#""stream":true "#,
            false => r#""stream":false"#,
        };
        let rest = match self.endpoint {
            Endpoint::ChatCompletions => format!(
                r#"{streams},"max_tokens":{limit},"messages":[{{"role":"user","content":"{about}"}}]"#
            ),
            Endpoint::Completions => {
                format!(r#"{streams},"max_tokens":{limit},"prompt":"{about}""#)
            }
            Endpoint::Responses => {
                format!(r#"{streams},"max_output_tokens":{limit},"input":"{about}""#)
            }
            Endpoint::Speech => {
                let format = if stream { r#""sse"  "# } else { r#""audio""# };
                let spoken = spoken(number);
                format!(r#""stream_format":{format},"input":"{spoken}","voice":"alloy""#)
            }
            Endpoint::Transcriptions | Endpoint::Translations => {
                return upload(model, &about, stream, &[]);
            }
            // As a form, or as JSON.
            Endpoint::ImageEdits if self.by == By::Most => {
                return upload(model, &about, stream, &[("n", &PICTURES.to_string())]);
            }
            Endpoint::ImageEdits => format!(
                r#"{streams},"n":{PICTURES},"prompt":"{about}","images":[{{"image_url":"data:image/png;base64,AA"}}]"#
            ),
            Endpoint::ImageGenerations => {
                format!(r#"{streams},"n":{PICTURES},"prompt":"{about}""#)
            }
            Endpoint::Rerank => {
                let count = if self.by == By::Unit { DOCUMENTS } else { 2 };
                let documents = vec!["a"; count];
                format!(r#""query":"{about}","documents":{documents:?}"#)
            }
            _ => format!(r#""input":"{about}""#),
        };
        format!(r#"{{"model":"{model}",{rest}}}"#).into_bytes()
    }

    /// How long its requests are, in bytes.
    fn length(self, limit: u64) -> u64 {
        self.body(self.by.model(), 0, limit, false).len() as u64
    }

    /// Whether its answers are text whose length is limited by the request.
    pub fn is_limited(self) -> bool {
        let limited = [
            Endpoint::ChatCompletions,
            Endpoint::Completions,
            Endpoint::Responses,
        ];
        limited.contains(&self.endpoint)
    }

    /// Whether it hears sound.
    pub fn hears(self) -> bool {
        matches!(
            self.endpoint,
            Endpoint::Transcriptions | Endpoint::Translations
        )
    }

    /// Whether it makes pictures.
    pub fn paints(self) -> bool {
        matches!(
            self.endpoint,
            Endpoint::ImageGenerations | Endpoint::ImageEdits
        )
    }

    /// Whether each event of its streams is a token to be seen.
    pub fn shows_tokens(self) -> bool {
        self.is_limited() || (self.hears() && self.by == By::Most)
    }

    /// Whether what is billed is told, or known from the start: the tokens of sound are not.
    pub fn tells(self, stream: bool) -> bool {
        stream || (self.endpoint, self.by) != (Endpoint::Speech, By::Most)
    }

    /// How much it takes of a unit of its own, of what there is of each.
    pub fn own(self, [characters, seconds, images, searches]: [u64; 4]) -> u64 {
        match self.endpoint {
            _ if self.by != By::Unit => 0,
            Endpoint::Speech => characters,
            Endpoint::Rerank => searches,
            _ if self.hears() => seconds,
            _ => images,
        }
    }

    /// The most that it may take of a unit of its own, and what it probably takes where nobody tells.
    fn most_own(self, limit: u64) -> [u64; 2] {
        if self.by != By::Unit {
            return [0; 2];
        }
        let length = self.length(limit);
        match self.endpoint {
            Endpoint::Speech => [spoken(0).chars().count() as u64; 2],
            Endpoint::Rerank => [DOCUMENTS.div_ceil(100) as u64; 2],
            _ if self.hears() => [length.div_ceil(750), length.div_ceil(4_000)],
            _ => [PICTURES; 2],
        }
    }

    /// What an answer has used, of which these are the tokens where it has any.
    pub fn used(self, input: u64, output: u64, stream: bool) -> Used {
        let own = match self.endpoint {
            _ if self.by != By::Unit => 0,
            Endpoint::Rerank => 1 + output % 3,
            _ if self.hears() => 1 + output % self.most_own(0)[0],
            _ => self.most_own(0)[0],
        };
        let has_tokens = self.by != By::Unit || (stream && !self.paints());
        let (input, output) = if has_tokens { (input, output) } else { (0, 0) };
        let judges = [
            Endpoint::Embeddings,
            Endpoint::Moderations,
            Endpoint::Rerank,
        ];
        let output = match judges.contains(&self.endpoint) {
            true => 0,
            false => output,
        };
        Used { input, output, own }
    }

    /// What a request is entered with where nobody tells, before any of its answer has passed.
    pub fn guess(self, limit: u64) -> Used {
        let length = self.length(limit);
        let is_form = self.hears() || self.endpoint == Endpoint::ImageEdits;
        let is_known = self.by == By::Unit && (self.endpoint == Endpoint::Speech || self.paints());
        let input = match is_form || is_known {
            true => 0,
            false => length.div_ceil(4),
        };
        let [_, own] = self.most_own(limit);
        let output = 0;
        Used { input, output, own }
    }

    /// What so much costs.
    pub fn cost(self, used: Used) -> u64 {
        match self.by {
            By::Unit => used.own * self.own(UNITS),
            By::Token | By::Most => used.input * INPUT + used.output * OUTPUT,
        }
    }

    /// The most that a request with this limit on its output may cost. Of what is written a token has a byte or more, and a
    /// template is put around it; of what is not written nobody knows but by the context.
    pub fn bound(self, limit: u64) -> u64 {
        let written = self.length(limit) + 256;
        let [own, _] = self.most_own(limit);
        let (input, output) = match self.by {
            By::Most if self.hears() || self.endpoint == Endpoint::ImageEdits => (CONTEXT, limit),
            By::Most => (written.min(CONTEXT), limit),
            By::Token if self.is_limited() => (written, limit),
            By::Token => (written, 0),
            By::Unit => (0, 0),
        };
        self.cost(Used { input, output, own })
    }
}

/// A form with a file that is written about a number.
fn upload(model: &str, about: &str, stream: bool, more: &[(&str, &str)]) -> Vec<u8> {
    // A form has no room for blanks that mean nothing.
    let (stream, prompt) = match stream {
        true => ("true", format!("{about}.")),
        false => ("false", about.to_owned()),
    };
    let texts = [("prompt", &*prompt), ("stream", stream), ("model", model)];
    let texts = [&texts, more].concat();
    match more.is_empty() {
        true => form(&[7; SOUND], &texts),
        false => {
            let head = "name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png";
            form_with(head, &[7; 40], &texts)
        }
    }
}

/// A model for each kind of price, at these providers.
pub fn models(providers: &[&str], limit: u64) -> String {
    let model = |by: By| {
        let terms = by.terms(limit);
        let target = |provider: &&str| format!("{{ to = \"{provider}/m\", {terms} }}");
        let targets: Vec<String> = providers.iter().map(target).collect();
        format!(
            "[models.{}]\ntargets = [{}]\n",
            by.model(),
            targets.join(", ")
        )
    };
    By::ALL.map(model).concat()
}
