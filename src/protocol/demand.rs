//! How much may an answer take at most? What a request asks for, in tokens: an upper bound, never a guess.
//!
//! A token stands for at least one byte of text, so a body's length bounds the tokens of what is written in it. What a
//! body only points at (a picture's address, a stored answer) has no bound but the model's own context.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::parts::Parts;
use super::units::Own;
use super::{Endpoint, Gives};
use crate::envelope::Members;
use crate::usage::Decimal;

/// What a provider's template puts around messages, in tokens: gpt-oss's has about 70.
const TEMPLATE: u64 = 256;

/// What a provider puts around tools, in tokens: Anthropic's instructions have about 350.
const TOOLBOX: u64 = 1_024;

/// What a picture takes, in tokens, however few bytes it has: the largest ones of OpenAI, Anthropic and Gemini stay below.
const PICTURE: u64 = 5_000;

/// The names of limits on output; a provider may know one, or the other, or both.
const LIMITS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// What a response's limit on output is called.
const OF_RESPONSES: [&str; 1] = ["max_output_tokens"];

/// What limits on output are called where this is asked.
pub fn limits(endpoint: Endpoint) -> &'static [&'static str] {
    match endpoint {
        Endpoint::Responses => &OF_RESPONSES,
        _ => &LIMITS,
    }
}

/// Members by which a client says who bills, or asks for what no token counts: OpenRouter's, and OpenAI's own.
const BILLING: [&str; 10] = [
    "background",
    "models",
    "plugins",
    "preset",
    "provider",
    "route",
    "service_tier",
    "transforms",
    "web_search",
    "web_search_options",
];

/// Members that a bound depends on, besides those that every request is read for.
const BOUNDING: [&str; 14] = [
    "best_of",
    "conversation",
    "documents",
    "functions",
    "input",
    "messages",
    "n",
    "prediction",
    "previous_response_id",
    "prompt",
    "quality",
    "query",
    "size",
    "tools",
];

/// Whether more of a member than its length counts, other than of the limits on output.
pub fn counts(name: &str) -> bool {
    BILLING.contains(&name) || BOUNDING.contains(&name)
}

/// Whether a member says which pictures are made, or how many: a request without it asks for others.
pub fn draws(name: &str) -> bool {
    matches!(name, "n" | "quality" | "size")
}

/// Every member that this room acts on: none of them may be disguised.
pub fn acted_on() -> impl Iterator<Item = &'static str> {
    let limits = LIMITS.into_iter().chain(OF_RESPONSES);
    limits.chain(BILLING).chain(BOUNDING)
}

/// What a request asks for that is no token. None: tokens alone.
pub fn own(endpoint: Endpoint, body: &impl Members) -> Option<Own> {
    // Most take none, and are not looked into.
    let answers = || number(body, "n").ok().flatten().unwrap_or(1);
    Own::of(endpoint, body, answers)
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Demand {
    /// Tokens of input that are in the body.
    written: u64,
    /// The body points at what we cannot see.
    unseen: bool,
    /// The output that the client allows, in tokens for each choice.
    pub limit: Option<u64>,
    /// How many answers it asks for.
    choices: u64,
    /// Tokens that may be billed as output beyond the limit.
    beyond: u64,
    /// There is output that a limit bounds.
    answers: bool,
    /// There is output that nothing bounds but the model.
    #[serde(default)]
    gives_any: bool,
    /// What it asks for that is no token.
    #[serde(default)]
    own: Option<Own>,
}

/// Why a request has no bound, or may not have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Boundless {
    /// A number that is none.
    #[error("`{0}` must be a whole number from 1 up")]
    Number(&'static str),
    /// It says who bills, or asks for what no token counts.
    #[error("`{0}` is not for callers with a budget: it changes what a request costs")]
    Billing(&'static str),
    /// A tool that the provider runs, at a price of its own.
    #[error(
        "`tools` may have functions only, for callers with a budget: what others cost is not known"
    )]
    Tool,
}

impl Boundless {
    /// The member it is about.
    pub fn param(self) -> &'static str {
        match self {
            Self::Number(name) | Self::Billing(name) => name,
            Self::Tool => "tools",
        }
    }
}

impl Demand {
    /// Reads a request of which nobody knows better what it asks for than we do.
    pub fn of(endpoint: Endpoint, body: &impl Members) -> Result<Self, Boundless> {
        for name in BILLING {
            if body.value(name).is_some_and(|value| is_extra(name, value)) {
                return Err(Boundless::Billing(name));
            }
        }
        if body.value("tools").is_some_and(|v| is_extra("tools", v)) {
            return Err(Boundless::Tool);
        }
        Self::at_a_price(endpoint, body)
    }

    /// Reads a request whose price is right whoever bills, and whatever is done for it besides.
    pub fn at_a_price(endpoint: Endpoint, body: &impl Members) -> Result<Self, Boundless> {
        let mut limit: Option<u64> = None;
        for &name in limits(endpoint) {
            if let Some(given) = number(body, name)? {
                limit = Some(limit.map_or(given, |limit| limit.min(given)));
            }
        }
        let parts = Parts::of(endpoint, body);
        let each = number(body, "n")?.unwrap_or(1);
        let each = each.max(number(body, "best_of")?.unwrap_or(1));
        let choices = each.saturating_mul(parts.prompts);
        let prediction = body.value("prediction").map_or(0, <[u8]>::len);
        let is_given = |name| body.value(name).is_some_and(|value| value != b"null");
        let tools = ["tools", "functions"].into_iter().any(is_given);
        let written = [
            body.length(),
            TEMPLATE,
            if tools { TOOLBOX } else { 0 },
            parts.pictures.saturating_mul(PICTURE),
        ];
        Ok(Self {
            written: written.into_iter().fold(0, u64::saturating_add),
            unseen: parts.unseen
                || ["previous_response_id", "conversation"]
                    .into_iter()
                    .any(is_given),
            limit,
            choices,
            beyond: prediction as u64,
            answers: endpoint.gives() == Gives::Text,
            gives_any: endpoint.gives() == Gives::Any,
            own: Own::of(endpoint, body, || choices),
        })
    }

    /// The most input, in tokens, that a model with such a context can take of it. None: nobody knows.
    pub fn input(&self, context: Option<u64>) -> Option<u64> {
        match context {
            Some(context) if self.unseen => Some(context),
            Some(context) => Some(self.written.min(context)),
            None => (!self.unseen).then_some(self.written),
        }
    }

    /// The most output, in tokens, if each choice may have so many.
    pub fn output(&self, each: u64) -> u64 {
        if self.gives_any {
            each
        } else if self.answers {
            each.saturating_add(self.beyond)
                .saturating_mul(self.choices)
        } else {
            0
        }
    }

    /// Whether there is output that no limit bounds.
    pub fn gives_any(&self) -> bool {
        self.gives_any
    }

    /// What it asks for that is no token. None: tokens alone.
    pub fn own(&self) -> Option<Own> {
        self.own
    }

    /// How many tokens each choice may have if all together may have so many.
    pub fn each(&self, all: u64) -> u64 {
        (all / self.choices.max(1)).saturating_sub(self.beyond)
    }

    /// Whether there is output at all that a limit could lower.
    pub fn answers(&self) -> bool {
        self.answers
    }
}

/// Whether a member says who bills, or asks for what no token counts.
pub fn is_extra(name: &str, value: &[u8]) -> bool {
    match name {
        // The others cost more, or are the account's own choice.
        "service_tier" => !matches!(value, b"null" | b"\"default\"" | b"\"flex\""),
        "tools" => !are_functions(value),
        _ => BILLING.contains(&name) && !matches!(value, b"null" | b"false" | b"[]"),
    }
}

/// A whole number from 1 up, if one is given.
fn number(body: &impl Members, name: &'static str) -> Result<Option<u64>, Boundless> {
    match body.value(name) {
        None | Some(b"null") => Ok(None),
        Some(value) => {
            let text = std::str::from_utf8(value).unwrap_or_default();
            // What is too large for a number of ours is as good as the largest.
            let read = match Decimal::parse(text, 0) {
                Ok(number) => number.exact(),
                Err(_) if is_number(text) => Some(u64::MAX),
                Err(_) => None,
            };
            read.filter(|n| *n > 0)
                .map(Some)
                .ok_or(Boundless::Number(name))
        }
    }
}

/// Whether a text is a number that is not negative, of any size.
fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
        && !text.contains("e-")
        && !text.contains("E-")
}

/// Whether a list of tools has nothing but functions, which their client runs.
fn are_functions(list: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Tool<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Cow<'a, str>>,
    }
    let is_function =
        |tool: &Tool<'_>| matches!(tool.kind.as_deref(), None | Some("function" | "custom"));
    // What cannot be read in one way may be anything.
    let is_all = |tools: Vec<Tool<'_>>| tools.iter().all(is_function);
    list == b"null" || serde_json::from_slice(list).is_ok_and(is_all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use bytes::Bytes;

    fn of(endpoint: Endpoint, body: &str) -> Result<Demand, Boundless> {
        let envelope = Envelope::scan(Bytes::copy_from_slice(body.as_bytes()), |_| false).unwrap();
        Demand::of(endpoint, &envelope)
    }

    fn chat(body: &str) -> Result<Demand, Boundless> {
        of(Endpoint::ChatCompletions, body)
    }

    fn messages(content: &str) -> String {
        format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#)
    }

    #[test]
    fn text_is_bounded_by_its_bytes() {
        let body = messages(r#""hi""#);
        let demand = chat(&body).unwrap();
        assert_eq!(demand.input(None), Some(body.len() as u64 + TEMPLATE));
        assert_eq!(demand.input(Some(100)), Some(100), "and by the context");
        let brackets = messages(r#""[1] see [2] \n""#);
        assert!(
            chat(&brackets).unwrap().input(None).is_some(),
            "text with brackets is text"
        );
        let parts = messages(
            r#"[{"type":"text","text":"a"},{"type":"input_audio","input_audio":{"data":"AA","format":"mp3"}}]"#,
        );
        assert!(chat(&parts).unwrap().input(None).is_some());
    }

    #[test]
    fn what_is_not_in_the_body_has_no_bound_but_the_context() {
        for content in [
            r#"[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]"#,
            r#"[{"type":"image_url","image_url":"http://x/y.png"}]"#,
            r#"[{"t\u0079pe":"image_url","image_url":{"url":"https://x"}}]"#,
            r#"[{"type":"image_url","image_url":{"url":"data:,","url":"https://x"}}]"#,
            r#"[{"type":"image_url"}]"#,
            r#"[{"type":"file","file":{"file_id":"f"}}]"#,
            r#"[{"type":"file","file":{"file_data":"data:application/pdf;base64,AA"}}]"#,
            r#"[{"type":"video_url","video_url":{"url":"data:,"}}]"#,
            r#"[{"text":"no type"}]"#,
            r#"["text"]"#,
            r#"{"type":"text"}"#,
            "\n {\"type\":\"text\"}",
        ] {
            let demand = chat(&messages(content)).unwrap();
            assert_eq!(demand.input(None), None, "{content}");
            assert_eq!(demand.input(Some(8_192)), Some(8_192), "{content}");
        }
        for body in [
            r#"{"messages":[{"role":"assistant","audio":{"id":"a"}}]}"#,
            r#"{"messages":[{"role":"assistant","\u0061udio":{"id":"a"}}]}"#,
            r#"{"messages":{"role":"user"}}"#,
            r#"{"messages":[],"previous_response_id":"r"}"#,
            r#"{"messages":[],"conversation":"c"}"#,
        ] {
            assert_eq!(chat(body).unwrap().input(None), None, "{body}");
        }
    }

    #[test]
    fn a_picture_takes_more_than_its_bytes() {
        for url in [
            r#"{"url":"data:image/png;base64,AA"}"#,
            r#""DATA:image/png;base64,AA""#,
        ] {
            let body = messages(&format!(r#"[{{"type":"image_url","image_url":{url}}}]"#));
            let demand = chat(&body).unwrap();
            assert_eq!(
                demand.input(None),
                Some(body.len() as u64 + TEMPLATE + PICTURE)
            );
        }
    }

    #[test]
    fn output_is_the_lowest_limit_times_the_answers() {
        let demand = |rest: &str| chat(&format!(r#"{{"messages":[],{rest}}}"#));
        let both = demand(r#""max_tokens":100,"max_completion_tokens":50.0,"n":3"#).unwrap();
        assert_eq!((both.limit, both.output(50)), (Some(50), 150));
        assert_eq!((both.each(150), both.each(149), both.each(2)), (50, 49, 0));
        assert_eq!(demand(r#""max_tokens":null,"n":null"#).unwrap().limit, None);
        assert_eq!(
            demand(r#""max_tokens":1e12"#).unwrap().limit,
            Some(1_000_000_000_000)
        );
        assert_eq!(
            demand(r#""max_tokens":1e99"#).unwrap().limit,
            Some(u64::MAX)
        );
        let predicted = demand(r#""prediction":{"type":"content","content":"1234"}"#).unwrap();
        assert_eq!(
            predicted.output(10),
            10 + 35,
            "what is predicted in vain is output"
        );
        for wrong in ["0", "-1", "\"ten\"", "1.5", "true", "[]", "1e-9"] {
            let refused = demand(&format!(r#""max_tokens":{wrong}"#));
            assert_eq!(refused, Err(Boundless::Number("max_tokens")), "{wrong}");
            assert_eq!(
                demand(&format!(r#""n":{wrong}"#)),
                Err(Boundless::Number("n")),
                "{wrong}"
            );
        }
        let thousand = demand(r#""max_tokens":1000,"n":1000"#).unwrap();
        assert_eq!(thousand.output(1_000), 1_000_000);
        assert_eq!(
            demand(r#""n":1e30"#).unwrap().output(u64::MAX),
            u64::MAX,
            "no overflow"
        );
    }

    #[test]
    fn each_prompt_has_its_answers() {
        for (prompt, answers) in [
            (r#""a""#, 2),
            (r#"["a","b { c"]"#, 4),
            ("[1,2,3]", 2),
            ("[[1],[2],[3]]", 6),
            ("[]", 2),
        ] {
            let body = format!(r#"{{"prompt":{prompt},"n":1,"best_of":2}}"#);
            let demand = of(Endpoint::Completions, &body).unwrap();
            assert_eq!(demand.output(1), answers, "{prompt}");
            assert!(demand.input(None).is_some());
        }
        let pictures = r#"{"input":[{"image":"https://x"}]}"#;
        let demand = of(Endpoint::Embeddings, pictures).unwrap();
        assert_eq!((demand.input(None), demand.output(9)), (None, 0));
    }

    #[test]
    fn what_changes_the_bill_is_refused() {
        let demand = |rest: &str| chat(&format!(r#"{{"messages":[],{rest}}}"#));
        for (rest, name) in [
            (r#""service_tier":"priority""#, "service_tier"),
            (r#""service_tier":"auto""#, "service_tier"),
            (r#""models":["a"]"#, "models"),
            (r#""plugins":[{"id":"web"}]"#, "plugins"),
            (r#""web_search_options":{}"#, "web_search_options"),
        ] {
            assert_eq!(demand(rest), Err(Boundless::Billing(name)));
        }
        for rest in [
            r#""service_tier":"default""#,
            r#""plugins":[]"#,
            r#""provider":null"#,
        ] {
            assert!(demand(rest).is_ok(), "{rest}");
        }
        for tools in [
            r#"[{"type":"web_search"}]"#,
            r#"[{"type":"function","type":"x"}]"#,
            "{}",
            "[1]",
        ] {
            assert_eq!(
                demand(&format!(r#""tools":{tools}"#)),
                Err(Boundless::Tool),
                "{tools}"
            );
        }
        let functions = demand(r#""tools":[{"type":"function","function":{}}]"#).unwrap();
        let none = demand(r#""t0000":[{"type":"function","function":{}}]"#).unwrap();
        assert_eq!(functions.written, none.written + TOOLBOX);
    }
}
