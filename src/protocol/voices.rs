//! With which voices does a provider speak? No two write the list of them alike, and OpenAI has none.
//!
//! Speaches and Kokoro write `{"voices": […]}`, of names or of objects with an `id`, a `voice_id` or a `name`; others a bare
//! list, or `data` as OpenAI's lists have it.

use serde_json::{Map, Value};

use super::{MOST_MODELS, Voice};

/// The longest member of what is said of a voice that is kept, in bytes as JSON: some have their sound in it.
const LONGEST: usize = 1 << 10;

/// Reads a list of voices. None: it is none.
pub(super) fn read(body: &[u8]) -> Option<Vec<Voice>> {
    let list = match serde_json::from_slice(body).ok()? {
        Value::Array(list) => list,
        Value::Object(mut members) => {
            let mut lists = ["voices", "data"].into_iter();
            match lists.find_map(|name| members.remove(name))? {
                Value::Array(list) => list,
                _ => return None,
            }
        }
        _ => return None,
    };
    let voices = list.into_iter().take(MOST_MODELS).filter_map(voice);
    Some(voices.collect())
}

fn voice(one: Value) -> Option<Voice> {
    let mut about = match one {
        Value::Object(members) => members,
        Value::String(id) => Map::from_iter([("name".to_owned(), id.into())]),
        _ => return None,
    };
    about.retain(|_, value| value.to_string().len() <= LONGEST);
    let mut names = ["id", "voice_id", "name"].into_iter();
    let id = names.find_map(|name| about.get(name)?.as_str())?;
    let id = Box::from(id);
    Some(Voice { id, about })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(list: &str) -> Option<Vec<Box<str>>> {
        let voices = read(list.as_bytes())?;
        Some(voices.into_iter().map(|voice| voice.id).collect())
    }

    #[test]
    fn everybodys_list_is_read() {
        for list in [
            r#"{"voices":["a","b"]}"#,
            r#"["a","b"]"#,
            r#"{"object":"list","data":[{"id":"a","name":"Anna"},{"id":"b"}]}"#,
            r#"{"voices":[{"voice_id":"a","name":"Anna"},{"name":"b"}]}"#,
            r#"{"voices":["a",7,null,{"gender":"f"},"b"]}"#,
        ] {
            assert_eq!(ids(list).unwrap(), ["a".into(), "b".into()], "{list}");
        }
        for none in [
            "",
            "{}",
            "7",
            r#"{"voices":"a"}"#,
            r#"{"voices":{}}"#,
            "<html>",
        ] {
            assert_eq!(ids(none), None, "{none}");
        }
        let long = format!(
            r#"[{{"id":"a","sample":"{}","lang":"de"}}]"#,
            "x".repeat(2_000)
        );
        let about = &read(long.as_bytes()).unwrap()[0].about;
        assert_eq!(about.keys().collect::<Vec<_>>(), ["id", "lang"]);
    }
}
