//! What a provider wants different in a request: data, applied to the body as edits.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::dropped::{Dropped, shown};
use crate::envelope::Edits;
use crate::protocol::{Endpoint, demand};

/// Rules in the order they are applied.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Members it must not be sent.
    pub refuse: Vec<String>,
    /// Old name and new name.
    pub rename: Vec<(String, String)>,
    /// Members to leave out.
    pub drop: Vec<String>,
    /// Members it knows, where `unknown` asks.
    pub known: Vec<String>,
    /// What becomes of all others.
    pub unknown: Unknown,
    /// Values, as JSON, for members that are not given.
    pub default: Vec<(String, Bytes)>,
    /// Values, as JSON, whatever is given.
    pub set: Vec<(String, Bytes)>,
    /// The lowest and the highest value of a number.
    pub clamp: Vec<(String, [f64; 2])>,
    /// What is changed in each message.
    pub messages: MessageRules,
}

/// What becomes of a member that a provider is not known to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// It goes on as it is.
    #[default]
    Forward,
    /// It is left out.
    Drop,
    /// The request is refused.
    Refuse,
}

/// What is changed in each message.
#[derive(Clone, Debug, Default)]
pub struct MessageRules {
    /// Old role, and new role as JSON.
    pub roles: Vec<(String, Bytes)>,
    /// A `content` of nothing but text parts becomes one string.
    pub join_text: bool,
    /// A `content` of `null` becomes an empty string.
    pub empty_content: bool,
    /// Members to leave out.
    pub drop: Vec<String>,
    /// Members not to leave out; empty: all.
    pub known: Vec<String>,
    /// Leave out members that are `null`.
    pub drop_nulls: bool,
}

impl MessageRules {
    fn is_empty(&self) -> bool {
        let Self {
            roles,
            join_text,
            empty_content,
            drop,
            known,
            drop_nulls,
        } = self;
        let lists = roles.len() + drop.len() + known.len();
        lists == 0 && !(*join_text || *empty_content || *drop_nulls)
    }
}

/// The request has a member that the provider must not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not accepted there")]
pub struct Refused(pub String);

impl Rules {
    /// Whether there is nothing that they change.
    pub fn is_empty(&self) -> bool {
        let Self {
            refuse,
            rename,
            drop,
            known: _,
            unknown,
            default,
            set,
            clamp,
            messages,
        } = self;
        let names = refuse.len() + rename.len() + drop.len();
        let values = default.len() + set.len() + clamp.len();
        names + values == 0 && *unknown == Unknown::Forward && messages.is_empty()
    }

    /// The names of members that a rule acts on.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let renamed = self.rename.iter().flat_map(|(from, to)| [from, to]);
        let given = self.default.iter().chain(&self.set).map(|(name, _)| name);
        let clamped = self.clamp.iter().map(|(name, _)| name);
        let names = self.refuse.iter().chain(renamed).chain(&self.drop);
        names.chain(given).chain(clamped).map(String::as_str)
    }

    /// Whether a request may ask for more after them than before, or for other pictures. Of the limits on output that is no
    /// matter: they are held to in the end.
    pub fn may_ask_for_more(&self) -> bool {
        // What is no text adds nothing that a model reads.
        let is_text = |value: &Bytes| matches!(value.first(), Some(b'"' | b'[' | b'{'));
        let mut given = self.default.iter().chain(&self.set);
        let mut roles = self.messages.roles.iter();
        let is_longer = |(old, new): &(String, Bytes)| new.len() > old.len() + "\"\"".len();
        given.any(|(name, value)| demand::counts(name) || is_text(value))
            || self
                .rename
                .iter()
                .any(|(from, to)| demand::counts(to) || demand::draws(from))
            || self.drop.iter().any(|name| demand::draws(name))
            || self.clamp.iter().any(|(name, _)| demand::counts(name))
            || roles.any(is_longer)
    }

    /// A member they give that changes what a request costs, whatever it is worth by the token.
    pub fn extra(&self) -> Option<&str> {
        let mut given = self.default.iter().chain(&self.set);
        let found = given.find(|(name, value)| demand::is_extra(name, value));
        found.map(|(name, _)| name.as_str())
    }

    /// Changes a body, and notes what it leaves out. What a provider knows, and what messages are to look like, is of chats,
    /// completions and embeddings: elsewhere members have other meanings.
    pub fn apply<'e>(
        &'e self,
        endpoint: Endpoint,
        edits: &mut Edits<'e>,
        dropped: &mut Dropped,
    ) -> Result<(), Refused> {
        let is_given = |name: &&String| !matches!(edits.get(name), None | Some(b"null"));
        if let Some(name) = self.refuse.iter().find(is_given) {
            return Err(Refused(name.clone()));
        }
        for (from, to) in &self.rename {
            rename(edits, from, to, dropped);
        }
        for name in &self.drop {
            leave_out(edits, name, dropped);
        }
        let is_listed = matches!(
            endpoint,
            Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Embeddings
        );
        if is_listed {
            self.judge_unknown(edits, dropped)?;
        }
        for (name, value) in &self.default {
            if edits.get(name).is_none() && twin(name).is_none_or(|twin| edits.get(twin).is_none())
            {
                edits.set(name, value.clone());
            }
        }
        for (name, value) in &self.set {
            edits.set(name, value.clone());
        }
        for (name, range) in &self.clamp {
            clamp(edits, name, *range);
            // Whichever name a client knows it by, it is one limit.
            if let Some(twin) = twin(name).filter(|twin| self.clamp.iter().all(|(c, _)| c != twin))
            {
                clamp(edits, twin, *range);
            }
        }
        if is_listed {
            self.messages.apply(edits, dropped);
        }
        // `[]` is refused by most ("[] is too short"), and without tools there is nothing to choose among.
        if edits
            .get("tools")
            .is_some_and(|tools| squeezed(tools).as_slice() == b"[]")
        {
            for name in ["tools", "tool_choice", "parallel_tool_calls"] {
                leave_out(edits, name, dropped);
            }
        }
        Ok(())
    }

    /// What the rules themselves give comes later: it is the operator's word, and not judged.
    fn judge_unknown(&self, edits: &mut Edits<'_>, dropped: &mut Dropped) -> Result<(), Refused> {
        if self.unknown == Unknown::Forward {
            return Ok(());
        }
        let is_unknown = |name: &&str| !self.known.iter().any(|known| known == name);
        let unknown: SmallVec<[Box<str>; 4]> =
            edits.names().filter(is_unknown).map(Into::into).collect();
        for name in &unknown {
            // To leave a limit out is to lift it: nobody asked for that.
            if self.unknown == Unknown::Refuse || twin(name).is_some() {
                return Err(Refused(shown(name).to_owned()));
            }
            leave_out(edits, name, dropped);
        }
        Ok(())
    }
}

/// The two names of the one limit on the length of an answer.
const LIMITS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// The other name of a limit; none if it is no limit.
fn twin(name: &str) -> Option<&'static str> {
    let [old, new] = LIMITS;
    match name {
        name if name == old => Some(new),
        name if name == new => Some(old),
        _ => None,
    }
}

/// What a limit bounds. What is no number above 0 bounds nothing: to some servers -1 means without a limit.
fn bound(edits: &Edits<'_>, name: &str) -> Option<f64> {
    number(edits, name).filter(|number| *number > 0.0)
}

fn is_smaller(one: Option<f64>, other: Option<f64>) -> bool {
    one.is_some_and(|one| other.is_none_or(|other| one < other))
}

fn clamp<'e>(edits: &mut Edits<'e>, name: &'e str, [low, high]: [f64; 2]) {
    if let Some(given) = number(edits, name)
        && !(low..=high).contains(&given)
    {
        edits.set(name, Bytes::from(plain(given.clamp(low, high))));
    }
}

fn leave_out(edits: &mut Edits<'_>, name: &str, dropped: &mut Dropped) {
    if edits.drop(name) {
        dropped.note("", name);
    }
}

fn rename<'e>(edits: &mut Edits<'e>, from: &str, to: &'e str, dropped: &mut Dropped) {
    if edits.get(from).is_none() {
        return;
    }
    match edits.get(to) {
        None => {}
        // `null` is no value: it takes nobody's place.
        Some(b"null") => {
            edits.drop(to);
        }
        // Two limits under one name: the smaller stays, or a renamed limit would lift the other.
        Some(_) if twin(from) == Some(to) && is_smaller(bound(edits, from), bound(edits, to)) => {
            leave_out(edits, to, dropped);
        }
        Some(_) => return leave_out(edits, from, dropped),
    }
    edits.rename(from, to);
}

impl MessageRules {
    fn apply(&self, edits: &mut Edits<'_>, dropped: &mut Dropped) {
        let leaves_out = self.drop_nulls || !self.drop.is_empty() || !self.known.is_empty();
        if !(leaves_out || self.join_text || self.empty_content || !self.roles.is_empty()) {
            return;
        }
        edits.each_within("messages", |message| {
            let role = message.string("role");
            let new = self
                .roles
                .iter()
                .find(|(old, _)| role.as_deref() == Some(old));
            if let Some((_, new)) = new {
                message.replace("role", new.clone());
            }
            let content = match message.get("content") {
                Some(b"null") if self.empty_content => Some(Bytes::from_static(b"\"\"")),
                Some(list) if self.join_text => joined(list),
                _ => None,
            };
            let filled = content.is_some();
            if let Some(content) = content {
                message.replace("content", content);
            }
            message.drop(|name, value| {
                let is_null = value == b"null" && !(filled && name == "content");
                let gone = self.drop.iter().any(|dropped| dropped == name)
                    || !(self.known.is_empty() || self.known.iter().any(|known| known == name));
                // To leave out `null` is to say the same in another way: there is nothing to tell.
                if gone {
                    dropped.note("messages[].", name);
                }
                gone || (self.drop_nulls && is_null)
            });
        });
    }
}

/// The text of a list of nothing but text parts, as one JSON string: what stands between their quotes, one after the
/// other. What else a part says (where to cache, say) is nothing that a server of plain text could act on.
fn joined(list: &[u8]) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        text: &'a RawValue,
    }
    let parts: Vec<&RawValue> = serde_json::from_slice(list).ok()?;
    let mut text = BytesMut::with_capacity(list.len());
    text.put_u8(b'"');
    for part in &parts {
        let part: Part<'_> = serde_json::from_str(part.get()).ok()?;
        let inside = part.text.get().strip_prefix('"')?.strip_suffix('"')?;
        if part.kind != "text" {
            return None;
        }
        text.extend_from_slice(inside.as_bytes());
    }
    text.put_u8(b'"');
    (!parts.is_empty()).then(|| text.freeze())
}

fn number(edits: &Edits<'_>, name: &str) -> Option<f64> {
    serde_json::from_slice(edits.get(name)?).ok()
}

/// A number as JSON; whole ones without a fraction, as strict servers want them.
fn plain(number: f64) -> String {
    let text = serde_json::Value::from(number).to_string();
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn squeezed(value: &[u8]) -> SmallVec<[u8; 8]> {
    value
        .iter()
        .copied()
        .filter(|b| !b.is_ascii_whitespace())
        .take(8)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    fn json(value: &Value) -> Bytes {
        Bytes::from(value.to_string())
    }

    fn rules() -> Rules {
        Rules {
            refuse: vec!["n".into()],
            rename: vec![("max_completion_tokens".into(), "max_tokens".into())],
            drop: vec!["logprobs".into()],
            default: vec![("top_p".into(), json(&0.5.into()))],
            set: vec![("user".into(), json(&"us".into()))],
            clamp: vec![("temperature".into(), [0.0, 1.0])],
            messages: MessageRules {
                roles: vec![("developer".into(), json(&"system".into()))],
                drop: vec!["name".into()],
                drop_nulls: true,
                ..MessageRules::default()
            },
            ..Rules::default()
        }
    }

    /// The body after each set of rules in turn, and what they say was left out.
    fn applied(all: &[Rules], body: &str) -> Result<(String, String), Refused> {
        let envelope = Envelope::scan(Bytes::copy_from_slice(body.as_bytes()), |_| false).unwrap();
        let (mut edits, mut dropped) = (envelope.edit(), Dropped::default());
        for rules in all {
            rules.apply(Endpoint::ChatCompletions, &mut edits, &mut dropped)?;
        }
        let told = dropped.header();
        let told = told.map_or(String::new(), |told| told.to_str().unwrap().to_owned());
        let body = String::from_utf8(edits.into_rope().to_vec()).unwrap();
        Ok((body, told))
    }

    #[track_caller]
    fn check(rules: Rules, body: &str, want: &str, told: &str) {
        let got = applied(&[rules], body).unwrap();
        assert_eq!(got, (want.to_owned(), told.to_owned()));
    }

    #[test]
    fn each_rule_does_what_it_says() {
        let body = r#"{"logprobs":true,"temperature":1.5,"max_completion_tokens":9,"user":"me","x":[1],
            "messages":[{"role":"developer","name":"a","content":"hi"},{"role":"user","content":null}],"tools":[ ],"tool_choice":"auto"}"#;
        let want = r#"{"temperature":1,"max_tokens":9,"user":"us","x":[1],
            "messages":[{"role":"system","content":"hi"},{"role":"user"}],"top_p":0.5}"#;
        let told = "logprobs, messages[].name, tools, tool_choice";
        check(rules(), body, want, told);
        assert_eq!(applied(&[rules()], r#"{"n":2}"#), Err(Refused("n".into())));
    }

    #[test]
    fn of_two_limits_the_smaller_stays_and_the_other_is_told() {
        let limit = |body: &str| {
            let (text, told) = applied(&[rules()], body).unwrap();
            let body: Value = serde_json::from_str(&text).unwrap();
            (body["max_tokens"].clone(), told)
        };
        let both = |old: &str, new: &str| {
            limit(&format!(
                r#"{{"max_tokens":{old},"max_completion_tokens":{new}}}"#
            ))
        };
        assert_eq!(
            both("5", "9"),
            (5.into(), "max_completion_tokens".to_owned())
        );
        assert_eq!(both("9", "5"), (5.into(), "max_tokens".to_owned()));
        assert_eq!(both("null", "5"), (5.into(), String::new()));
        for none in ["-1", "0", "\"100000\"", "[]"] {
            assert_eq!(
                both(none, "5"),
                (5.into(), "max_tokens".to_owned()),
                "{none}"
            );
            let other = (5.into(), "max_completion_tokens".to_owned());
            assert_eq!(both("5", none), other, "{none}");
        }
        assert_eq!(
            limit(r#"{"max_completion_tokens":5}"#),
            (5.into(), String::new())
        );
        assert_eq!(
            limit(r#"{"max_tokens":null}"#),
            (Value::Null, String::new())
        );
    }

    #[test]
    fn a_bound_holds_under_either_name_of_the_limit() {
        let bounded = || Rules {
            clamp: vec![("max_tokens".into(), [1.0, 1000.0])],
            default: vec![("max_tokens".into(), json(&50.into()))],
            ..Rules::default()
        };
        let to = |from: &str, to: &str| Rules {
            rename: vec![(from.into(), to.into())],
            ..Rules::default()
        };
        let sent = |all: &[Rules], body: &str| applied(all, body).unwrap().0;
        let (old, new) = (
            r#"{"max_tokens":9000}"#,
            r#"{"max_completion_tokens":9000}"#,
        );
        let renamed = Rules {
            rename: vec![("max_tokens".into(), "max_completion_tokens".into())],
            ..bounded()
        };
        assert_eq!(sent(&[renamed], old), r#"{"max_completion_tokens":1000}"#);
        let then = to("max_completion_tokens", "max_tokens");
        assert_eq!(sent(&[bounded(), then], new), r#"{"max_tokens":1000}"#);
        assert_eq!(sent(&[bounded()], "{}"), r#"{"max_tokens":50}"#);
        let own = Rules {
            clamp: vec![
                ("max_tokens".into(), [1.0, 10.0]),
                ("max_completion_tokens".into(), [1.0, 2000.0]),
            ],
            ..Rules::default()
        };
        assert_eq!(sent(&[own], new), r#"{"max_completion_tokens":2000}"#);
    }

    #[test]
    fn null_asks_for_nothing_and_a_limit_is_not_left_out_in_silence() {
        assert!(applied(&[rules()], r#"{"n":null}"#).is_ok());
        let strict = Rules {
            known: vec!["model".into(), "stream".into()],
            unknown: Unknown::Drop,
            ..Rules::default()
        };
        let limited = applied(&[strict], r#"{"model":"m","user":"u","max_tokens":5}"#);
        assert_eq!(limited, Err(Refused("max_tokens".into())));
    }

    #[test]
    fn values_within_bounds_stay_as_they_were_written() {
        let body = r#"{"temperature":1.0,"top_p":1e0,"tools":[1]}"#;
        let want = r#"{"temperature":1.0,"top_p":1e0,"tools":[1],"user":"us"}"#;
        check(rules(), body, want, "");
    }

    #[test]
    fn unknown_members_are_judged_by_their_new_names() {
        let strict = |unknown| Rules {
            rename: vec![("seed".into(), "random_seed".into())],
            drop: vec!["logprobs".into()],
            known: vec!["model".into(), "random_seed".into()],
            unknown,
            set: vec![("extra".into(), json(&1.into()))],
            ..Rules::default()
        };
        let body = r#"{"model":"a","seed":1,"logprobs":true,"x":2,"é":3}"#;
        check(
            strict(Unknown::Drop),
            body,
            r#"{"model":"a","random_seed":1,"extra":1}"#,
            "logprobs, x, ?",
        );
        check(
            strict(Unknown::Forward),
            body,
            r#"{"model":"a","random_seed":1,"x":2,"é":3,"extra":1}"#,
            "logprobs",
        );
        let refused = |body| applied(&[strict(Unknown::Refuse)], body).unwrap_err().0;
        assert_eq!(refused(body), "x");
        assert_eq!(refused(r#"{"é":3}"#), "?");
        let known = r#"{"model":"a","logprobs":true}"#;
        assert!(applied(&[strict(Unknown::Refuse)], known).is_ok());
    }

    #[test]
    fn text_parts_become_one_string_and_other_lists_stay() {
        let plain = Rules {
            messages: MessageRules {
                join_text: true,
                empty_content: true,
                drop_nulls: true,
                ..MessageRules::default()
            },
            ..Rules::default()
        };
        let content = |content: &str| {
            let body = format!(r#"{{"messages":[{{"content":{content},"audio":null}}]}}"#);
            let (body, told) = applied(std::slice::from_ref(&plain), &body).unwrap();
            assert_eq!(told, "");
            let start = r#"{"messages":[{"content":"#;
            let inner = body.strip_prefix(start).unwrap().strip_suffix("}]}");
            inner.unwrap().to_owned()
        };
        let text = r#"[ {"type":"text","text":"a\u00e9\n"},{"x":[1],"text":"","t\u0079pe":"te\u0078t"} , {"text":"b","type":"text"}]"#;
        assert_eq!(content(text), r#""a\u00e9\nb""#);
        assert_eq!(content("null"), r#""""#);
        for other in [
            r#""hi""#,
            "[]",
            "7",
            r#"[{"type":"text","text":"a"},{"type":"image_url"}]"#,
            r#"[{"type":"refusal","text":"a"}]"#,
            r#"[{"type":"text","text":7}]"#,
            r#"[{"type":"text","text":"a","text":"b"}]"#,
            r#"["a"]"#,
        ] {
            assert_eq!(content(other), other);
        }
    }

    #[test]
    fn messages_that_a_rule_has_set_or_changed_are_changed_too() {
        let with = |messages| Rules {
            messages,
            ..Rules::default()
        };
        let named = with(MessageRules {
            drop: vec!["name".into()],
            ..MessageRules::default()
        });
        let known = with(MessageRules {
            known: vec!["role".into()],
            ..MessageRules::default()
        });
        let body = r#"{"messages":[{"name":"a","x":1,"role":"user"}]}"#;
        let want = r#"{"messages":[{"role":"user"}]}"#;
        let told = "messages[].name, messages[].x";
        let got = applied(&[named.clone(), known], body).unwrap();
        assert_eq!(got, (want.to_owned(), told.to_owned()));
        let set = Rules {
            set: vec![(
                "messages".into(),
                Bytes::from_static(br#"[{"name":"b","role":"user"}]"#),
            )],
            ..named
        };
        check(set.clone(), body, want, "messages[].name");
        check(set, "{}", want, "messages[].name");
    }

    const NAMES: [&str; 6] = ["a", "b", "c", "max_tokens", "tools", "tool_choice"];

    fn name() -> impl Strategy<Value = String> {
        prop::sample::select(&NAMES[..]).prop_map(Into::into)
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            Just(serde_json::json!([])),
            any::<bool>().prop_map(Value::from),
            (-20..20i32).prop_map(Value::from),
            "[a\"\\\\é\n]{0,3}".prop_map(Value::from),
        ]
    }

    fn content() -> impl Strategy<Value = Value> {
        let part = (prop::sample::select(&["text", "image"][..]), value())
            .prop_map(|(kind, text)| serde_json::json!({ "type": kind, "text": text }));
        prop_oneof![
            value(),
            prop::collection::vec(part, 0..3).prop_map(Value::from),
            prop::collection::vec("[a\"\n]{0,2}", 1..3).prop_map(|texts| {
                let part = |text| serde_json::json!({ "type": "text", "text": text });
                texts.into_iter().map(part).collect()
            }),
        ]
    }

    fn messages() -> impl Strategy<Value = Value> {
        let role = prop::sample::select(&["user", "developer"][..]);
        let more = prop::collection::btree_map(name(), value(), 0..3);
        let message = (content(), role, more).prop_map(|(content, role, more)| {
            let mut message: Map<String, Value> = more.into_iter().collect();
            message.insert("content".into(), content);
            message.insert("role".into(), role.into());
            Value::Object(message)
        });
        prop::collection::vec(prop_oneof![9 => message, 1 => value()], 0..3).prop_map(Value::from)
    }

    fn body() -> impl Strategy<Value = Map<String, Value>> {
        let members = prop::collection::btree_map(name(), value(), 0..6);
        (members, prop::option::of(messages())).prop_map(|(members, messages)| {
            let messages = messages.map(|messages| ("messages".to_owned(), messages));
            members.into_iter().chain(messages).collect()
        })
    }

    fn message_rules() -> impl Strategy<Value = MessageRules> {
        let names = || prop::collection::vec(name(), 0..2);
        let known = prop_oneof![
            Just(Vec::new()),
            names().prop_map(|mut names| {
                names.extend(["role".into(), "content".into()]);
                names
            })
        ];
        let flags = any::<[bool; 4]>();
        (names(), known, flags).prop_map(|(drop, known, [roles, join, empty, nulls])| {
            let developer = ("developer".to_owned(), json(&"system".into()));
            MessageRules {
                roles: roles.then_some(developer).into_iter().collect(),
                join_text: join,
                empty_content: empty,
                drop,
                known,
                drop_nulls: nulls,
            }
        })
    }

    fn any_rules() -> impl Strategy<Value = Rules> {
        let names = |most| prop::collection::vec(name(), 0..most);
        let values = || prop::collection::vec((name(), value().prop_map(|v| json(&v))), 0..2);
        let renames = prop::collection::vec((name(), name()), 0..3);
        let unknown = prop::sample::select(&[Unknown::Forward, Unknown::Drop, Unknown::Refuse][..]);
        let clamps = prop::collection::vec((name(), Just([-2.0, 3.0])), 0..2);
        let refuse = prop::option::weighted(0.1, name());
        let first = (refuse, renames, names(2), names(6), unknown);
        let set = (values(), prop::option::weighted(0.2, messages())).prop_map(|(mut set, new)| {
            set.extend(new.map(|new| ("messages".to_owned(), json(&new))));
            set
        });
        (first, values(), set, clamps, message_rules()).prop_map(
            |((refuse, mut rename, drop, known, unknown), default, set, clamp, messages)| {
                rename.retain(|(from, to)| from != to);
                Rules {
                    refuse: refuse.into_iter().collect(),
                    rename,
                    drop,
                    known,
                    unknown,
                    default,
                    set,
                    clamp,
                    messages,
                }
            },
        )
    }

    /// The rules once more, on a map that is taken apart and put together again.
    fn on_a_map(rules: &Rules, map: &mut Map<String, Value>) -> Result<(), ()> {
        let is_given = |name: &String| map.get(name).is_some_and(|value| !value.is_null());
        if rules.refuse.iter().any(is_given) {
            return Err(());
        }
        let is_limit = |name: &str| name == "max_tokens" || name == "max_completion_tokens";
        let other = |name: &str| match name {
            "max_tokens" => "max_completion_tokens",
            _ => "max_tokens",
        };
        for (from, to) in &rules.rename {
            let Some(given) = map.remove(from) else {
                continue;
            };
            let stays = match map.get(to) {
                None | Some(Value::Null) => false,
                Some(there) if is_limit(from) && is_limit(to) => {
                    let bound = |value: &Value| value.as_f64().filter(|bound| *bound > 0.0);
                    let most = f64::INFINITY;
                    bound(&given).unwrap_or(most) >= bound(there).unwrap_or(most)
                }
                Some(_) => true,
            };
            if !stays {
                map.insert(to.clone(), given);
            }
        }
        map.retain(|name, _| !rules.drop.contains(name));
        let known = |name: &String| rules.known.contains(name);
        match rules.unknown {
            Unknown::Forward => {}
            Unknown::Drop if map.keys().any(|name| is_limit(name) && !known(name)) => {
                return Err(());
            }
            Unknown::Drop => map.retain(|name, _| known(name)),
            Unknown::Refuse if !map.keys().all(known) => return Err(()),
            Unknown::Refuse => {}
        }
        let parsed = |value: &Bytes| serde_json::from_slice::<Value>(value).unwrap();
        for (name, value) in &rules.default {
            if !(is_limit(name) && map.contains_key(other(name))) {
                map.entry(name).or_insert_with(|| parsed(value));
            }
        }
        for (name, value) in &rules.set {
            map.insert(name.clone(), parsed(value));
        }
        let has_own = |name: &str| rules.clamp.iter().any(|(clamped, _)| clamped == name);
        for (name, [low, high]) in &rules.clamp {
            let twin = Some(other(name)).filter(|twin| is_limit(name) && !has_own(twin));
            for name in [Some(&**name), twin].into_iter().flatten() {
                if let Some(given) = map.get(name).and_then(Value::as_i64) {
                    #[expect(clippy::cast_possible_truncation, reason = "whole and small")]
                    let [low, high] = [*low as i64, *high as i64];
                    map.insert(name.to_owned(), given.clamp(low, high).into());
                }
            }
        }
        let messages = map.get_mut("messages").and_then(Value::as_array_mut);
        for message in messages.into_iter().flatten() {
            if let Some(message) = message.as_object_mut() {
                on_a_message(&rules.messages, message);
            }
        }
        if map.get("tools") == Some(&Value::Array(Vec::new())) {
            map.retain(|name, _| name != "tools" && name != "tool_choice");
        }
        Ok(())
    }

    fn on_a_message(rules: &MessageRules, message: &mut Map<String, Value>) {
        if !rules.roles.is_empty() && message["role"] == "developer" {
            message.insert("role".into(), "system".into());
        }
        let text = |part: &Value| {
            let text = part["text"].as_str().filter(|_| part["type"] == "text");
            text.map(str::to_owned)
        };
        if let Some(content) = message.get_mut("content") {
            let list = content.as_array().filter(|list| !list.is_empty());
            let joined = list.and_then(|list| list.iter().map(text).collect::<Option<String>>());
            match joined {
                Some(joined) if rules.join_text => *content = joined.into(),
                _ if rules.empty_content && content.is_null() => *content = "".into(),
                _ => {}
            }
        }
        message.retain(|name, value| {
            let is_known = rules.known.is_empty() || rules.known.contains(name);
            is_known && !rules.drop.contains(name) && !(rules.drop_nulls && value.is_null())
        });
    }

    proptest! {
        /// What is spliced is what a map would have become, and what is told is what is gone.
        #[test]
        fn the_rules_agree_with_a_map(
            before in body(),
            first in any_rules(),
            second in any_rules(),
            pretty in any::<bool>(),
        ) {
            let text = if pretty { serde_json::to_string_pretty(&before) } else { serde_json::to_string(&before) }.unwrap();
            let mut want = before.clone();
            let all = [first, second];
            match all.iter().try_for_each(|rules| on_a_map(rules, &mut want)) {
                Err(()) => prop_assert!(applied(&all, &text).is_err()),
                Ok(()) => {
                    let (got, told) = applied(&all, &text).unwrap();
                    let got: Value = serde_json::from_str(&got).unwrap();
                    prop_assert_eq!(got, Value::Object(want.clone()));
                    let new_names: Vec<_> = all.iter().flat_map(|rules| &rules.rename).collect();
                    for name in before.keys().filter(|name| !want.contains_key(*name)) {
                        let renamed = new_names.iter().any(|(from, _)| from == name);
                        prop_assert!(renamed || told.split(", ").any(|gone| gone == name), "{} of {}", name, told);
                    }
                }
            }
        }
    }
}
