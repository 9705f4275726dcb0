//! The checks of the client test in Rust: what async-openai makes of the gateway's answers.
//!
//! run.sh starts everything and tells where it is through the environment, as answers.py says, which has the same checks. What
//! is expected is what shapes.py answers. This client reads into types of its own, so that a member which is missing, or is
//! of another type, is an error.

#![allow(
    deprecated,
    reason = "what goes out of use is asked for as long as it is there"
)]

use std::env;
use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io::Write as _;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::audio::{
    AudioInput, AudioResponseFormat, CreateTranscriptionRequest,
    CreateTranscriptionResponseStreamEvent, CreateTranslationRequest, TranscriptionUsage,
};
use async_openai::types::chat::{ChatCompletionMessageToolCalls, CreateChatCompletionRequest};
use async_openai::types::images::{CreateImageEditRequest, Image, ImageInput, ImageModel};
use async_openai::types::responses::{OutputItem, Response, ResponseStreamEvent};
use futures::{Stream, StreamExt as _};
use serde_json::{Value, from_value, json};

type Checked = Result<(), Box<dyn std::error::Error>>;

const WORDS: [&str; 6] = ["Grüße", ", ", "wor", "ld", " 🌍", "."];
/// Of all bytes, a thousand times.
const HEARD: &str = "Heard b57b64b198d5d59ce5a22a9b9f25e72a7d081476d432051aa923f3dbebb90934";

fn client(key: &str) -> Client<OpenAIConfig> {
    let url = env::var("ANSWERS").expect("ANSWERS says where the gateway is") + "/v1";
    Client::with_config(OpenAIConfig::new().with_api_base(url).with_api_key(key))
}

/// Of whoever has a budget.
fn rich() -> Client<OpenAIConfig> {
    client("sk-rich-5d41402abc4b2a76")
}

fn upload() -> Vec<u8> {
    (0..=u8::MAX).cycle().take(256 * 1000).collect()
}

fn sound() -> Vec<u8> {
    (0..=u8::MAX).cycle().take(256 * 40).collect()
}

/// A request, as one writes it for `OpenAI`.
fn asked<T: serde::de::DeserializeOwned>(model: &str, more: Value) -> Result<T, serde_json::Error> {
    let mut body = more;
    body["model"] = model.into();
    from_value(body)
}

fn chat(more: Value) -> Result<CreateChatCompletionRequest, serde_json::Error> {
    let mut body = more;
    body["messages"] = json!([{ "role": "user", "content": "hello" }]);
    asked("talk", body)
}

async fn collected<T>(
    stream: impl Stream<Item = Result<T, OpenAIError>>,
) -> Result<Vec<T>, OpenAIError> {
    stream.collect::<Vec<_>>().await.into_iter().collect()
}

fn equal<T: PartialEq + Debug>(actual: T, expected: T, what: &str) -> Checked {
    if actual == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, got {actual:?}").into())
}

fn fails<T>(
    answer: Result<T, OpenAIError>,
    status: u16,
    code: &str,
    param: Option<&str>,
) -> Checked {
    match answer {
        Err(OpenAIError::ApiError(error)) => {
            let said = error.api_error;
            let actual = (
                error.status_code.as_u16(),
                said.code.as_deref(),
                said.param.as_deref(),
            );
            equal(actual, (status, Some(code), param), &said.message)
        }
        Err(error) => Err(format!("expected {status}, got {error}").into()),
        Ok(_) => Err(format!("expected {status}, got an answer").into()),
    }
}

fn transcription(model: &str) -> CreateTranscriptionRequest {
    CreateTranscriptionRequest {
        file: AudioInput::from_vec_u8("a b.wav".into(), upload()),
        model: model.into(),
        ..Default::default()
    }
}

async fn chats() -> Checked {
    let client = rich();
    let answer = client.chat().create(chat(json!({}))?).await?;
    let usage = answer.usage.ok_or("no usage")?;
    equal(
        answer.choices[0].message.content.clone(),
        Some(WORDS.concat()),
        "content",
    )?;
    equal(
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
        ),
        (20, 9, 29),
        "usage",
    )?;
    equal(
        usage
            .prompt_tokens_details
            .and_then(|details| details.cached_tokens),
        Some(8),
        "cached",
    )?;
    equal(
        usage
            .completion_tokens_details
            .and_then(|details| details.reasoning_tokens),
        Some(3),
        "reasoning",
    )?;

    let stream = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let chunks = collected(client.chat().create_stream(chat(stream)?).await?).await?;
    let pieces = chunks
        .iter()
        .flat_map(|chunk| &chunk.choices)
        .filter_map(|choice| choice.delta.content.clone());
    equal(
        pieces.collect::<Vec<_>>().concat(),
        WORDS.concat(),
        "pieces",
    )?;
    let usage = chunks
        .iter()
        .find_map(|chunk| chunk.usage.clone())
        .ok_or("no usage")?;
    equal(usage.total_tokens, 29, "usage of a stream")
}

async fn tools() -> Checked {
    let client = rich();
    let tools = json!([{ "type": "function", "function": { "name": "weather", "parameters": { "type": "object" } } }]);
    let answer = client
        .chat()
        .create(chat(json!({ "tools": tools }))?)
        .await?;
    let calls = answer.choices[0]
        .message
        .tool_calls
        .clone()
        .unwrap_or_default();
    let calls = calls.into_iter().filter_map(|call| match call {
        ChatCompletionMessageToolCalls::Function(call) => {
            Some((call.id, call.function.name, call.function.arguments))
        }
        ChatCompletionMessageToolCalls::Custom(_) => None,
    });
    let expected = [("call_a", "Oslo"), ("call_b", "Bern")].map(|(id, city)| {
        (
            id.to_owned(),
            "weather".to_owned(),
            format!("{{\"city\":\"{city}\"}}"),
        )
    });
    equal(calls.collect::<Vec<_>>(), expected.to_vec(), "calls")?;

    let stream = client
        .chat()
        .create_stream(chat(json!({ "tools": tools, "stream": true }))?)
        .await?;
    let mut streamed = vec![(String::new(), String::new(), String::new()); 2];
    for chunk in collected(stream).await? {
        for part in chunk
            .choices
            .into_iter()
            .flat_map(|choice| choice.delta.tool_calls.unwrap_or_default())
        {
            let call = &mut streamed[part.index as usize];
            call.0 += &part.id.unwrap_or_default();
            let function = part.function.unwrap_or_default();
            call.1 += &function.name.unwrap_or_default();
            call.2 += &function.arguments.unwrap_or_default();
        }
    }
    equal(streamed, expected.to_vec(), "calls from a stream")
}

fn response_is_whole(response: &Response) -> Checked {
    equal(response.output_text(), Some(WORDS.concat()), "text")?;
    let usage = response.usage.as_ref().ok_or("no usage")?;
    let cached = usage.input_tokens_details.cached_tokens;
    let reasoning = usage.output_tokens_details.reasoning_tokens;
    equal(
        (usage.input_tokens, cached, usage.output_tokens, reasoning),
        (20, 8, 9, 3),
        "usage",
    )
}

async fn responses() -> Checked {
    let client = rich();
    response_is_whole(
        &client
            .responses()
            .create(asked("talk", json!({ "input": "hello" }))?)
            .await?,
    )?;

    let stream = asked("talk", json!({ "input": "hello", "stream": true }))?;
    let events = collected(client.responses().create_stream(stream).await?).await?;
    let deltas = events.iter().filter_map(|event| match event {
        ResponseStreamEvent::ResponseOutputTextDelta(event) => Some(event.delta.as_str()),
        _ => None,
    });
    equal(deltas.collect::<Vec<_>>(), WORDS.to_vec(), "pieces")?;
    let Some(ResponseStreamEvent::ResponseCompleted(last)) = events.last() else {
        return Err("the stream does not end with its response".into());
    };
    response_is_whole(&last.response)?;

    let tools = json!([{ "type": "function", "name": "weather", "parameters": { "type": "object" }, "strict": true }]);
    let response = client
        .responses()
        .create(asked("talk", json!({ "input": "hello", "tools": tools }))?)
        .await?;
    let calls = response.output.iter().filter_map(|item| match item {
        OutputItem::FunctionCall(call) => Some((call.call_id.as_str(), call.arguments.as_str())),
        _ => None,
    });
    let expected = [
        ("call_a", r#"{"city":"Oslo"}"#),
        ("call_b", r#"{"city":"Bern"}"#),
    ];
    equal(calls.collect::<Vec<_>>(), expected.to_vec(), "calls")
}

async fn vectors() -> Checked {
    let client = rich();
    let answer = client
        .embeddings()
        .create(asked("vector", json!({ "input": ["a", "b"] }))?)
        .await?;
    let vectors = answer.data.into_iter().map(|item| item.embedding);
    equal(
        vectors.collect::<Vec<_>>(),
        vec![vec![1.0, -2.0, 0.0], vec![1.0, -2.0, 1.0]],
        "vectors",
    )?;
    equal(
        (answer.usage.prompt_tokens, answer.usage.total_tokens),
        (8, 8),
        "usage",
    )?;
    let base64 = asked(
        "vector",
        json!({ "input": ["a"], "encoding_format": "base64" }),
    )?;
    let answer = client.embeddings().create_base64(base64).await?;
    let vector: Vec<f32> = answer.data[0].embedding.clone().into();
    equal(vector, vec![1.0, -2.0, 0.0], "base64")
}

async fn speech() -> Checked {
    let client = rich();
    let body = json!({ "input": "Grüße 🌍.", "voice": "coral" });
    let answer = client
        .audio()
        .speech()
        .create(asked("speak", body.clone())?)
        .await?;
    equal(
        answer.bytes.to_vec() == sound(),
        true,
        "whether it is the sound",
    )?;
    let mut body = body;
    body["stream_format"] = "sse".into();
    let stream = client
        .audio()
        .speech()
        .create_stream(asked("speak-by-token", body)?)
        .await?;
    equal(collected(stream).await?.len(), 5, "events")
}

async fn transcripts() -> Checked {
    let client = rich();
    let answer = client
        .audio()
        .transcription()
        .create(transcription("hear"))
        .await?;
    equal(answer.text.as_str(), HEARD, "transcript")?;
    let TranscriptionUsage::Duration(usage) = answer.usage else {
        return Err("the usage is no duration".into());
    };
    equal(usage.seconds, 9.0, "seconds")?;
    let mut verbose = transcription("hear");
    verbose.response_format = Some(AudioResponseFormat::VerboseJson);
    let verbose = client
        .audio()
        .transcription()
        .create_verbose_json(verbose)
        .await?;
    equal(verbose.text.as_str(), HEARD, "verbose transcript")?;
    let mut asked = transcription("hear-by-token");
    asked.stream = Some(true);
    let events = collected(client.audio().transcription().create_stream(asked).await?).await?;
    let Some(CreateTranscriptionResponseStreamEvent::TranscriptTextDone(done)) = events.last()
    else {
        return Err("the stream does not end with its transcript".into());
    };
    equal(done.text.as_str(), HEARD, "streamed transcript")?;
    let translation = CreateTranslationRequest {
        file: AudioInput::from_vec_u8("a.wav".into(), upload()),
        model: "hear".into(),
        ..Default::default()
    };
    let answer = client.audio().translation().create(translation).await?;
    equal(answer.text.as_str(), HEARD, "translation")
}

async fn pictures() -> Checked {
    let client = rich();
    let answer = client
        .images()
        .generate(asked(
            "draw-by-token",
            json!({ "prompt": "a toll house", "n": 2 }),
        )?)
        .await?;
    equal(answer.data.len(), 2, "pictures")?;
    let usage = answer.usage.ok_or("no usage")?;
    equal(
        (usage.input_tokens, usage.output_tokens),
        (10, 544),
        "usage",
    )?;
    let edit = CreateImageEditRequest {
        image: ImageInput::from_vec_u8("a.png".into(), upload()).into(),
        prompt: "Heard".into(),
        model: ImageModel::Other("draw".into()),
        ..Default::default()
    };
    let answer = client.images().edit(edit).await?;
    let Image::B64Json { revised_prompt, .. } = &*answer.data[0] else {
        return Err("the picture is not in the answer".into());
    };
    equal(revised_prompt.as_deref(), Some(HEARD), "what came of it")
}

async fn moderations() -> Checked {
    let body = json!({ "input": ["hello", "a threat"] });
    let answer = rich().moderations().create(asked("judge", body)?).await?;
    let flagged = answer
        .results
        .iter()
        .map(|result| (result.flagged, result.categories.violence));
    equal(
        flagged.collect::<Vec<_>>(),
        vec![(false, false), (true, true)],
        "flagged",
    )
}

async fn models() -> Checked {
    let client = rich();
    let listed = client.models().list().await?;
    equal(
        listed.data.iter().any(|model| model.id == "shapes/hear"),
        true,
        "whether it is listed",
    )?;
    equal(
        client.models().retrieve("talk").await?.id.as_str(),
        "talk",
        "model",
    )
}

async fn errors() -> Checked {
    let client_of_nobody = client("sk-nobody");
    let client = rich();
    fails(
        client_of_nobody.chat().create(chat(json!({}))?).await,
        401,
        "invalid_api_key",
        None,
    )?;
    let mut unknown = chat(json!({}))?;
    unknown.model = "unheard-of".into();
    fails(
        client.chat().create(unknown).await,
        404,
        "model_not_found",
        Some("model"),
    )?;
    let hot = client
        .chat()
        .create(chat(json!({ "temperature": 3.0 }))?)
        .await;
    fails(hot, 400, "decimal_above_max_value", Some("temperature"))?;
    let wrong = client
        .audio()
        .transcription()
        .create(transcription("talk"))
        .await;
    fails(wrong, 400, "invalid_request", Some("model"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let checks: [(&str, Checked); 10] = [
        ("chats", chats().await),
        ("tools", tools().await),
        ("responses", responses().await),
        ("vectors", vectors().await),
        ("speech", speech().await),
        ("transcripts", transcripts().await),
        ("pictures", pictures().await),
        ("moderations", moderations().await),
        ("models", models().await),
        ("errors", errors().await),
    ];
    for (name, checked) in &checks {
        match checked {
            Ok(()) => println!("ok    async-openai: {name}"),
            Err(error) => println!("FAIL  async-openai: {name}\n{error}"),
        }
    }
    let passed = checks.iter().filter(|(_, checked)| checked.is_ok()).count();
    let summary = env::var("SUMMARY").expect("SUMMARY is a file");
    let summary = OpenOptions::new().append(true).create(true).open(summary);
    let written = summary.and_then(|mut file| writeln!(file, "{passed} {}", checks.len() - passed));
    written.expect("the summary can be written");
    std::process::exit(i32::from(passed < checks.len()));
}
