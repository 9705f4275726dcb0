//! What a provider answers at every endpoint, in its true shape, with what it took where a provider tells that. Each piece of
//! content is an `"x"`.

use tollgate::protocol::Endpoint;

use super::services::{By, PICTURES, Service, Used};
use super::{DONE, FINISH, delta};

/// Usage by its older names.
fn older(Used { input, output, .. }: Used) -> String {
    let total = input + output;
    format!(
        r#""usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{total}}}"#
    )
}

/// Usage by its newer names.
fn newer(Used { input, output, .. }: Used) -> String {
    let total = input + output;
    format!(r#""usage":{{"input_tokens":{input},"output_tokens":{output},"total_tokens":{total}}}"#)
}

/// Usage of a transcript, which says what it is in.
fn of_tokens(usage: &str) -> String {
    usage.replace('{', r#"{"type":"tokens","#)
}

/// The type of a whole answer, and its body.
pub fn whole(service: Service, used: Used) -> (&'static str, String) {
    if service.endpoint == Endpoint::Speech {
        let sound = r#""x""#.repeat(usize::try_from(used.output.max(2)).unwrap());
        return ("audio/mpeg", sound);
    }
    let Used { input, own, .. } = used;
    let is_by_unit = service.by == By::Unit;
    let (older, newer) = (older(used), newer(used));
    let text = match service.endpoint {
        Endpoint::ChatCompletions => format!(
            r#"{{"object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"x"}},"finish_reason":"stop"}}],{older}}}"#
        ),
        Endpoint::Completions => format!(
            r#"{{"object":"text_completion","choices":[{{"index":0,"text":"x","finish_reason":"stop"}}],{older}}}"#
        ),
        Endpoint::Embeddings => format!(
            r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":[0.5]}}],"model":"m","usage":{{"prompt_tokens":{input},"total_tokens":{input}}}}}"#
        ),
        Endpoint::Responses => format!(
            r#"{{"id":"resp_1","object":"response","status":"completed","error":null,"output":[{{"type":"message","role":"assistant","content":[{{"type":"output_text","text":"x"}}]}}],{newer}}}"#
        ),
        // Told in two ways: what is billed by its length, and how long it was.
        Endpoint::Transcriptions if is_by_unit => {
            format!(r#"{{"text":"x","usage":{{"type":"duration","seconds":{own}}}}}"#)
        }
        Endpoint::Translations if is_by_unit => format!(
            r#"{{"task":"translate","language":"german","duration":{}.47,"text":"x"}}"#,
            own - 1
        ),
        Endpoint::Transcriptions | Endpoint::Translations => {
            format!(r#"{{"text":"x",{}}}"#, of_tokens(&newer))
        }
        Endpoint::ImageGenerations | Endpoint::ImageEdits => {
            let pictures = vec![r#"{"b64_json":"x"}"#; usize::try_from(PICTURES).unwrap()];
            let told = if is_by_unit {
                String::new()
            } else {
                format!(",{newer}")
            };
            format!(r#"{{"created":1,"data":[{}]{told}}}"#, pictures.join(","))
        }
        Endpoint::Moderations => {
            format!(r#"{{"id":"modr-1","model":"m","results":[{{"flagged":false}}],{older}}}"#)
        }
        _ => {
            let told = match is_by_unit {
                true => format!(
                    r#""meta":{{"api_version":{{"version":"2"}},"billed_units":{{"search_units":{own}}}}}"#
                ),
                false => format!(r#""usage":{{"total_tokens":{input}}}"#),
            };
            format!(r#"{{"results":[{{"index":0,"relevance_score":0.9}}],{told}}}"#)
        }
    };
    ("application/json", text)
}

/// A stream: what it begins with, its content piece by piece, and what ends it and tells what it took.
pub struct Events {
    pub opening: Vec<String>,
    pub content: Vec<String>,
    pub closing: Vec<String>,
}

/// An event that says what it is.
fn event(kind: &str, rest: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{rest}}}\n\n")
}

/// The events of an answer: each token is one, where it shows them.
pub fn events(service: Service, used: Used) -> Events {
    let times = usize::try_from(used.output).unwrap();
    let (older, newer) = (older(used), newer(used));
    let usage = format!("data: {{\"choices\":[],{older}}}\n\n");
    let text = "data: {\"choices\":[{\"index\":0,\"text\":\"x\",\"finish_reason\":null}]}\n\n";
    let (opening, one, closing) = match service.endpoint {
        Endpoint::ChatCompletions => {
            let closing = vec![FINISH.to_owned() + &usage, DONE.to_owned()];
            (None, delta("x"), closing)
        }
        Endpoint::Completions => {
            let finish =
                "data: {\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\n";
            let closing = vec![finish.to_owned() + &usage, DONE.to_owned()];
            (None, text.to_owned(), closing)
        }
        Endpoint::Responses => {
            let of_response = |status: &str, rest: &str| {
                format!(
                    r#""response":{{"id":"resp_1","object":"response","status":"{status}","error":null,"output":[]{rest}}}"#
                )
            };
            let opening = event("response.created", &of_response("in_progress", ""));
            let done = of_response("completed", &format!(",{newer}"));
            let one = event("response.output_text.delta", r#""delta":"x""#);
            (Some(opening), one, vec![event("response.completed", &done)])
        }
        Endpoint::Speech => {
            let one = event("speech.audio.delta", r#""audio":"x""#);
            (None, one, vec![event("speech.audio.done", &newer)])
        }
        _ if service.paints() => return pictures(service, used),
        // As Mistral tells lengths and tokens.
        _ if service.by == By::Unit => {
            let one = event("transcription.text.delta", r#""text":"x""#);
            let told = older.replace('{', &format!(r#"{{"prompt_audio_seconds":{},"#, used.own));
            let done = event("transcription.done", &format!(r#""text":"y",{told}"#));
            (None, one, vec![done])
        }
        _ => {
            let one = event("transcript.text.delta", r#""delta":"x""#);
            let told = of_tokens(&newer);
            let done = event("transcript.text.done", &format!(r#""text":"y",{told}"#));
            (None, one, vec![done])
        }
    };
    Events {
        opening: opening.into_iter().collect(),
        content: vec![one; times],
        closing,
    }
}

/// Pictures, each with a sketch before it. Each tells what it took itself, by the token.
fn pictures(service: Service, used: Used) -> Events {
    let name = match service.endpoint {
        Endpoint::ImageEdits => "image_edit",
        _ => "image_generation",
    };
    let mut events = Vec::new();
    for n in 0..PICTURES {
        let sketch = r#""partial_image_index":0,"b64_json":"x""#;
        events.push(event(&format!("{name}.partial_image"), sketch));
        let so_far = |n| used.output * n / PICTURES;
        let this = Used {
            input: if n == 0 { used.input } else { 0 },
            output: so_far(n + 1) - so_far(n),
            own: 0,
        };
        let told = match service.by {
            By::Unit => String::new(),
            By::Token | By::Most => format!(",{}", newer(this)),
        };
        let picture = format!(r#""b64_json":"x"{told}"#);
        events.push(event(&format!("{name}.completed"), &picture));
    }
    let closing = events.pop().into_iter().collect();
    Events {
        opening: Vec::new(),
        content: events,
        closing,
    }
}
