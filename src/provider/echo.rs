//! The built-in engine: says back what it hears, so that a gateway can be tried with nothing else on the machine.
//!
//! Chat answers the last user message, completions the prompt, one word an event; its tokens are its words. Embeddings
//! are eight numbers made of the input's bytes: the same text has the same place, and that is all they mean.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::protocol::{Complaint, Endpoint};

/// A member of a JSON value; null where there is none.
fn of<'v>(value: &'v Value, name: &str) -> &'v Value {
    value.get(name).unwrap_or(&Value::Null)
}

/// More words than this are not said back: they are all in memory at once.
const MOST_WORDS: usize = 10_000;

/// More texts than this are not embedded at once; OpenAI's own limit.
const MOST_TEXTS: usize = 2_048;

/// What the engine says: a status, a content type and the pieces of its body.
#[derive(Debug)]
pub struct Said {
    /// 200, or 400 where it was asked nothing it understands.
    pub status: StatusCode,
    /// What the pieces are.
    pub content_type: &'static str,
    /// A body, or the events of one.
    pub pieces: Vec<Bytes>,
}

/// Answers a request.
pub fn answer(endpoint: Endpoint, body: &[u8]) -> Said {
    if !matches!(
        endpoint,
        Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Embeddings
    ) {
        return confused("the echo engine knows chats, completions and embeddings only");
    }
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return confused("the body is not JSON");
    };
    let model = of(&request, "model").as_str().unwrap_or("echo");
    if endpoint == Endpoint::Embeddings {
        return embed(model, of(&request, "input"));
    }
    let (heard, said) = match endpoint {
        Endpoint::ChatCompletions => {
            let messages = of(&request, "messages")
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let last = messages
                .iter()
                .rfind(|message| *of(message, "role") == "user");
            let Some(last) = last else {
                return confused("there is no user message to echo");
            };
            let heard: Vec<String> = messages
                .iter()
                .map(|message| text(of(message, "content")))
                .collect();
            (heard.join(" "), text(of(last, "content")))
        }
        _ => (text(of(&request, "prompt")), text(of(&request, "prompt"))),
    };
    let limit = ["max_completion_tokens", "max_tokens"]
        .iter()
        .find_map(|name| of(&request, name).as_u64());
    let limit = limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX)
        .min(MOST_WORDS);
    let words: Vec<&str> = said.split_inclusive(char::is_whitespace).collect();
    let kept = words.get(..limit.min(words.len())).unwrap_or_default();
    let reply = Reply {
        chat: endpoint == Endpoint::ChatCompletions,
        model,
        words: kept,
        finish: if kept.len() < words.len() {
            "length"
        } else {
            "stop"
        },
        usage: usage(heard.split_whitespace().count(), kept.len()),
    };
    if *of(&request, "stream") == true {
        reply.events(*of(of(&request, "stream_options"), "include_usage") == true)
    } else {
        reply.whole()
    }
}

struct Reply<'a> {
    chat: bool,
    model: &'a str,
    words: &'a [&'a str],
    finish: &'static str,
    usage: Value,
}

impl Reply<'_> {
    fn frame(&self, object: &str, choices: &Value, usage: Option<&Value>) -> Value {
        let mut frame = json!({ "id": "echo", "object": object, "created": 0, "model": self.model, "choices": choices });
        if let (Some(usage), Some(members)) = (usage, frame.as_object_mut()) {
            members.insert("usage".into(), usage.clone());
        }
        frame
    }

    fn whole(&self) -> Said {
        let said = self.words.concat();
        let (object, choice) = if self.chat {
            let message = json!({ "role": "assistant", "content": said });
            (
                "chat.completion",
                json!({ "index": 0, "message": message, "finish_reason": self.finish }),
            )
        } else {
            (
                "text_completion",
                json!({ "index": 0, "text": said, "finish_reason": self.finish }),
            )
        };
        whole(&self.frame(object, &json!([choice]), Some(&self.usage)))
    }

    fn events(&self, tell_usage: bool) -> Said {
        let mut pieces = Vec::with_capacity(self.words.len() + 4);
        let mut event = |choices: Value, usage: Option<&Value>| {
            let object = if self.chat {
                "chat.completion.chunk"
            } else {
                "text_completion"
            };
            pieces.push(Bytes::from(format!(
                "data: {}\n\n",
                self.frame(object, &choices, usage)
            )));
        };
        let choice = |delta: Value, finish: Option<&str>| {
            let name = if self.chat { "delta" } else { "text" };
            json!([{ "index": 0, name: delta, "finish_reason": finish }])
        };
        if self.chat {
            event(
                choice(json!({ "role": "assistant", "content": "" }), None),
                None,
            );
        }
        for word in self.words {
            let delta = if self.chat {
                json!({ "content": word })
            } else {
                json!(word)
            };
            event(choice(delta, None), None);
        }
        let last = if self.chat { json!({}) } else { json!("") };
        event(choice(last, Some(self.finish)), None);
        if tell_usage {
            event(json!([]), Some(&self.usage));
        }
        pieces.push(Bytes::from_static(b"data: [DONE]\n\n"));
        Said {
            status: StatusCode::OK,
            content_type: "text/event-stream",
            pieces,
        }
    }
}

fn embed(model: &str, input: &Value) -> Said {
    if input.as_array().is_some_and(|list| list.len() > MOST_TEXTS) {
        return confused("no more than 2048 texts are embedded at once");
    }
    let inputs = match input {
        Value::Array(list) if list.iter().all(Value::is_string) => list.iter().map(text).collect(),
        other => vec![text(other)],
    };
    let place = |text: &String| {
        let mut place = [0_u32; 8];
        for (n, byte) in text.bytes().enumerate() {
            if let Some(slot) = place.get_mut(n % 8) {
                *slot = slot.wrapping_mul(31).wrapping_add(u32::from(byte)) % 1_000;
            }
        }
        place.map(|n| f64::from(n) / 1_000.0)
    };
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(n, text)| json!({ "object": "embedding", "index": n, "embedding": place(text) }))
        .collect();
    let heard: usize = inputs
        .iter()
        .map(|text| text.split_whitespace().count())
        .sum();
    whole(&json!({ "object": "list", "model": model, "data": data,
        "usage": { "prompt_tokens": heard, "total_tokens": heard } }))
}

/// A string, or the text parts of a list.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .map(|part| of(part, "text").as_str().unwrap_or_default())
            .collect(),
        _ => String::new(),
    }
}

fn usage(heard: usize, said: usize) -> Value {
    json!({ "prompt_tokens": heard, "completion_tokens": said, "total_tokens": heard + said })
}

fn whole(body: &Value) -> Said {
    Said {
        status: StatusCode::OK,
        content_type: "application/json",
        pieces: vec![Bytes::from(body.to_string())],
    }
}

fn confused(message: &str) -> Said {
    let status = StatusCode::BAD_REQUEST;
    let complaint = Complaint {
        status,
        code: "invalid_request",
        message,
        param: None,
    };
    Said {
        status,
        content_type: "application/json",
        pieces: vec![complaint.body()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(said: &Said) -> Value {
        serde_json::from_slice(&said.pieces.concat()).unwrap()
    }

    #[test]
    fn it_says_back_the_last_user_message() {
        let request = br#"{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"good day"}]},{"role":"assistant","content":null}]}"#;
        let said = body(&answer(Endpoint::ChatCompletions, request));
        assert_eq!(said["choices"][0]["message"]["content"], "good day");
        assert_eq!(
            said["usage"],
            json!({"prompt_tokens":4,"completion_tokens":2,"total_tokens":6})
        );
    }

    #[test]
    fn it_streams_one_word_an_event() {
        let request = br#"{"prompt":"one two  three","stream":true,"max_tokens":2,"stream_options":{"include_usage":true}}"#;
        let said = answer(Endpoint::Completions, request);
        let texts: Vec<String> = said
            .pieces
            .iter()
            .map(|p| String::from_utf8_lossy(p).into_owned())
            .collect();
        assert_eq!(
            texts.len(),
            5,
            "two words, a finish, the usage, the end: {texts:?}"
        );
        assert!(texts[2].contains(r#""finish_reason":"length""#));
        assert!(texts[3].contains(r#""completion_tokens":2"#));
    }

    #[test]
    fn it_does_not_say_back_a_book() {
        let book = "a ".repeat(MOST_WORDS + 1);
        let request = json!({"stream": true, "prompt": book}).to_string();
        let said = answer(Endpoint::Completions, request.as_bytes());
        assert_eq!(said.pieces.len(), MOST_WORDS + 2);
        let request = json!({"input": vec!["a"; MOST_TEXTS + 1]}).to_string();
        assert_eq!(answer(Endpoint::Embeddings, request.as_bytes()).status, 400);
    }

    #[test]
    fn it_embeds_and_complains() {
        let said = body(&answer(Endpoint::Embeddings, br#"{"input":["a b","c"]}"#));
        assert_eq!(said["data"].as_array().unwrap().len(), 2);
        assert_eq!(said["usage"]["total_tokens"], 3);
        assert_eq!(
            answer(Endpoint::ChatCompletions, br#"{"messages":[]}"#).status,
            400
        );
        assert_eq!(answer(Endpoint::ChatCompletions, b"{").status, 400);
    }
}
