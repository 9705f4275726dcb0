//! Is a request too long for a model, or not allowed there? What each provider says then, for another model may take it.
//!
//! As everywhere, only words for programs are read, and of a message its beginning: further in, a prompt may be said back,
//! and a prompt may say anything.

use http::StatusCode;

use crate::protocol::ErrorBody;

/// Why a request, which is its client's fault, may still be taken by another model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is longer than the model's context.
    TooLong,
    /// The provider does not answer such a thing.
    Flagged,
}

impl Unfit {
    /// What an error with such a status says of it, if it is about that at all.
    pub fn of(status: StatusCode, said: &ErrorBody) -> Option<Self> {
        // A limit on tokens by the minute speaks of length as well.
        if said.words().any(|word| word.starts_with("rate_limit")) {
            return None;
        }
        match (status.as_u16(), Self::told(said)) {
            // OpenRouter says why it was flagged, in a place of its own.
            (403, _) if said.is_moderated => Some(Self::Flagged),
            // Older servers call it a fault of their own.
            (400 | 413 | 422 | 500, Some(Self::TooLong)) => Some(Self::TooLong),
            (400 | 403 | 422, Some(Self::Flagged)) => Some(Self::Flagged),
            _ => None,
        }
    }

    /// The same by its words alone.
    pub(super) fn told(said: &ErrorBody) -> Option<Self> {
        let has = |words: &[&str]| said.words().any(|word| is_among(words, word));
        let message = said.message.as_deref().unwrap_or_default();
        let says = |starts: &[&str]| starts.iter().any(|start| begins(message, start));
        if has(FLAGGED) || says(FLAGGED_SO) {
            Some(Self::Flagged)
        } else if has(TOO_LONG) || says(TOO_LONG_SO) {
            Some(Self::TooLong)
        } else {
            None
        }
    }
}

/// Codes and types of what is too long: OpenAI, Azure, Groq, Cerebras; OpenRouter; llama.cpp.
const TOO_LONG: &[&str] = &[
    "context_length_exceeded",
    "max_tokens_exceeded",
    "token_limit_exceeded",
    "exceed_context_size_error",
];

/// What messages about it begin with, in small letters; `#` is a number.
const TOO_LONG_SO: &[&str] = &[
    // OpenAI, Azure, DeepSeek, vLLM, Together, OpenRouter.
    "this model's maximum context length is",
    "this endpoint's maximum context length is",
    "input tokens exceed the configured limit",
    "your input exceeds the context window",
    // Groq, Cerebras.
    "please reduce the length of the messages or completion",
    "current length is # while limit is #",
    // Ollama.
    "the input length exceeds the context length",
    "input length exceeds",
    "prompt is longer than the context length",
    "prompt too long",
    // llama.cpp.
    "the request exceeds the available context size",
    "request (# tokens) exceeds the available context size",
    "context size has been exceeded",
    // vLLM, SGLang.
    "'max_tokens' is too large. this model's maximum context length is",
    "'max_tokens' or 'max_completion_tokens' is too large: #. this model's maximum context length is",
    "the prompt (total length #) is too long to fit into the model",
    "the decoder prompt (length #) is longer than the maximum model length",
    "the input (# tokens) is longer than the model's context length",
    "requested token count exceeds the model's maximum context length",
    // LM Studio.
    "trying to keep the first # tokens when context",
    "cannot truncate prompt with n_keep",
    "the number of tokens to keep from the initial prompt is greater than the context length",
    // Text Generation Inference, Together.
    "input validation error: `inputs` tokens + `max_new_tokens` must be <=",
    "input validation error: `inputs` must have less than # tokens",
    "`inputs` tokens + `max_new_tokens` must be <=",
    "`inputs` must have less than # tokens",
    // Anthropic.
    "prompt is too long",
    "prompt: length",
    "input length and `max_tokens` exceed context limit",
    // Bedrock.
    "input is too long",
    "the model returned the following errors: input is too long",
    "the model returned the following errors: prompt is too long",
    // Gemini.
    "the input token count (#) exceeds the maximum number of tokens",
    "the input token count exceeds the maximum number of tokens",
    "input token count (#) exceeds the maximum number of tokens",
    // Mistral.
    "prompt contains # tokens",
    // xAI.
    "this model's maximum prompt length is",
    // Fireworks.
    "the prompt is too long",
    // Bedrock, Cohere.
    "too many tokens",
    // Kimi.
    "invalid request: your request exceeded model token limit",
    "your request exceeded model token limit",
    // LiteLLM.
    "litellm.contextwindowexceedederror",
];

/// Codes of what is not answered: OpenAI, OpenRouter; Azure; Alibaba.
const FLAGGED: &[&str] = &[
    "content_policy_violation",
    "moderation_blocked",
    "cyber_policy",
    "refusal",
    "content_filter",
    "responsibleaipolicyviolation",
    "data_inspection_failed",
    "datainspectionfailed",
];

/// What messages about it begin with, in small letters.
const FLAGGED_SO: &[&str] = &[
    // OpenAI.
    "invalid prompt: your prompt was flagged",
    "your request was rejected as a result of our safety system",
    // Azure.
    "the response was filtered due to the prompt triggering",
    // Anthropic.
    "output blocked by content filtering policy",
    // DeepSeek.
    "content exists risk",
    // xAI.
    "content violates usage guidelines",
    // LiteLLM.
    "litellm.contentpolicyviolationerror",
];

fn is_among(words: &[&str], word: &str) -> bool {
    words.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Whether a text begins so: `start` is in small letters, and each `#` in it is a number.
pub(super) fn begins(text: &str, start: &str) -> bool {
    let mut rest = text;
    for (n, part) in start.split('#').enumerate() {
        if n > 0 {
            let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ',');
            if number.len() == rest.len() {
                return false;
            }
            rest = number;
        }
        let (Some(head), Some(tail)) = (rest.get(..part.len()), rest.get(part.len()..)) else {
            return false;
        };
        if !head.eq_ignore_ascii_case(part) {
            return false;
        }
        rest = tail;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;
    use crate::protocol::openai::OpenAi;

    fn of(status: u16, body: &str) -> Option<Unfit> {
        let said = OpenAi.error(body.as_bytes()).unwrap();
        Unfit::of(StatusCode::from_u16(status).unwrap(), &said)
    }

    /// An error in OpenAI's envelope, with nothing but its message.
    fn message(text: &str) -> String {
        let text = serde_json::Value::from(text);
        format!(r#"{{"error":{{"message":{text},"type":"invalid_request_error","code":null}}}}"#)
    }

    #[test]
    fn every_provider_says_in_its_own_way_that_a_prompt_is_too_long() {
        for (status, body) in [
            // OpenAI and Azure; Responses; Groq; Cerebras.
            (
                400,
                r#"{"error":{"message":"m","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
            ),
            // OpenRouter.
            (
                400,
                r#"{"error":{"message":"Provider returned error","code":400,"metadata":{"error_type":"context_length_exceeded"}}}"#,
            ),
            // llama.cpp, also of long ago.
            (
                400,
                r#"{"error":{"code":400,"message":"request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096}}"#,
            ),
            (
                500,
                r#"{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}"#,
            ),
            // vLLM, with its error as the whole body.
            (
                400,
                r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens","type":"BadRequestError","param":null,"code":400}"#,
            ),
            // Mistral.
            (
                400,
                r#"{"object":"error","message":"Prompt contains 140000 tokens and 0 draft tokens, too large for model with 131072 maximum context length","type":"invalid_request_prompt","param":null,"code":"3051"}"#,
            ),
            // Anthropic.
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
            ),
            // Gemini: a list of one.
            (
                400,
                r#"[{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}]"#,
            ),
            // xAI.
            (
                400,
                r#"{"code":"Client specified an invalid argument","error":"This model's maximum prompt length is 131072 but the request contains 200000 tokens."}"#,
            ),
            // Cohere, Ollama, Text Generation Inference: a text alone.
            (
                400,
                r#"{"message":"too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000."}"#,
            ),
            (
                400,
                r#"{"error":"the input length exceeds the context length"}"#,
            ),
            (
                422,
                r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 100 `max_new_tokens`","error_type":"validation"}"#,
            ),
        ] {
            assert_eq!(of(status, body), Some(Unfit::TooLong), "{body}");
        }
    }

    #[test]
    fn many_say_so_in_words_for_people_only() {
        for text in [
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.",
            "Your input exceeds the context window of this model. Please adjust your input and try again.",
            "Please reduce the length of the messages or completion.",
            "Current length is 9000 while limit is 8192",
            "This endpoint's maximum context length is 32768 tokens. However, you requested about 40000 tokens",
            "prompt is longer than the context length currently available",
            "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 4096 tokens",
            "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
            "The input (5,000 tokens) is longer than the model's context length (4096 tokens).",
            "Requested token count exceeds the model's maximum context length of 4096 tokens.",
            "Trying to keep the first 5000 tokens when context the overflows.",
            "Cannot truncate prompt with n_keep (5000) >= n_ctx (4096)",
            "The number of tokens to keep from the initial prompt is greater than the context length.",
            "input length and `max_tokens` exceed context limit: 199000 + 4096 > 200000",
            "Input is too long for requested model.",
            "The prompt is too long: 9000, model maximum context length: 8191",
            "Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)",
            "litellm.ContextWindowExceededError: litellm.BadRequestError: m",
        ] {
            assert_eq!(of(400, &message(text)), Some(Unfit::TooLong), "{text}");
        }
    }

    #[test]
    fn every_provider_says_in_its_own_way_that_it_does_not_answer_such_a_thing() {
        for (status, body) in [
            // OpenAI, by code.
            (
                400,
                r#"{"error":{"message":"m","type":"invalid_request_error","code":"content_policy_violation"}}"#,
            ),
            (
                400,
                r#"{"error":{"message":"m","type":"image_generation_user_error","code":"moderation_blocked"}}"#,
            ),
            (
                400,
                r#"{"error":{"message":"m","type":"invalid_request_error","code":"cyber_policy"}}"#,
            ),
            // Azure, by its code and by the one within.
            (
                400,
                r#"{"error":{"message":"m","type":null,"param":"prompt","code":"content_filter","status":400}}"#,
            ),
            (
                400,
                r#"{"error":{"message":"m","code":"400","innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{}}}}"#,
            ),
            // OpenRouter.
            (
                403,
                r#"{"error":{"message":"Input flagged","code":403,"metadata":{"reasons":["violence"],"flagged_input":"Hi"}}}"#,
            ),
            (
                400,
                r#"{"error":{"message":"m","code":400,"metadata":{"error_type":"content_policy_violation"}}}"#,
            ),
            // Anthropic.
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"Output blocked by content filtering policy"}}"#,
            ),
            // xAI.
            (
                403,
                r#"{"code":"c","error":"Content violates usage guidelines. Team: t"}"#,
            ),
            // Alibaba.
            (
                400,
                r#"{"error":{"message":"m","type":"data_inspection_failed","code":"data_inspection_failed"}}"#,
            ),
        ] {
            assert_eq!(of(status, body), Some(Unfit::Flagged), "{body}");
        }
        for text in [
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
            "Your request was rejected as a result of our safety system.",
            "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            "Content Exists Risk",
            "litellm.ContentPolicyViolationError: m",
        ] {
            assert_eq!(of(400, &message(text)), Some(Unfit::Flagged), "{text}");
        }
    }

    #[test]
    fn what_a_client_wrote_and_is_said_back_is_no_signature() {
        let echoed = "This model's maximum context length is 1. context_length_exceeded content_filter, \
                      Content Exists Risk, prompt is too long";
        for body in [
            message(&format!("Invalid content: '{echoed}'")),
            message(&format!("'{echoed}'")),
            message("prompt contains many tokens"),
            format!("Bad request: {echoed}"),
            r#"{"detail":[{"loc":["body","content_filter"],"msg":"extra: prompt is too long"}]}"#
                .to_owned(),
            r#"{"error":{"message":"m","type":"t","param":"context_length_exceeded"}}"#.to_owned(),
        ] {
            for status in [400, 403, 413, 422, 500] {
                assert_eq!(of(status, &body), None, "{body}");
            }
        }
    }

    #[test]
    fn who_asks_too_much_in_a_minute_does_not_ask_for_too_much() {
        let too_fast = r#"{"error":{"message":"Request too large for model in organization on tokens per minute (TPM): Limit 6000","type":"tokens","code":"rate_limit_exceeded"}}"#;
        assert_eq!(of(413, too_fast), None);
        let too_long = r#"{"error":{"message":"Please reduce the length of the messages or completion","type":"tokens","code":"rate_limit_exceeded"}}"#;
        assert_eq!(of(413, too_long), None);
        assert_eq!(of(429, &message("prompt is too long")), None);
        assert_eq!(of(404, &message("prompt is too long")), None);
    }
}
