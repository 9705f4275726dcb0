//! What a provider wants different in a request: data, applied to the body as edits.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::envelope::Edits;

/// Rules in the order they are applied.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Members it must not be sent.
    pub refuse: Vec<String>,
    /// Old name and new name.
    pub rename: Vec<(String, String)>,
    /// Members to leave out.
    pub drop: Vec<String>,
    /// Values, as JSON, for members that are not given.
    pub default: Vec<(String, Bytes)>,
    /// Values, as JSON, whatever is given.
    pub set: Vec<(String, Bytes)>,
    /// The lowest and the highest value of a number.
    pub clamp: Vec<(String, [f64; 2])>,
    /// What is changed in each message.
    pub messages: MessageRules,
}

/// What is changed in each message.
#[derive(Clone, Debug, Default)]
pub struct MessageRules {
    /// Old role, and new role as JSON.
    pub roles: Vec<(String, Bytes)>,
    /// Members to leave out.
    pub drop: Vec<String>,
    /// Leave out members that are `null`.
    pub drop_nulls: bool,
}

/// The request has a member that the provider must not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not accepted there")]
pub struct Refused(pub String);

impl Rules {
    /// The names of members that a rule acts on.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let renamed = self.rename.iter().flat_map(|(from, to)| [from, to]);
        let given = self.default.iter().chain(&self.set).map(|(name, _)| name);
        let clamped = self.clamp.iter().map(|(name, _)| name);
        let names = self.refuse.iter().chain(renamed).chain(&self.drop);
        names.chain(given).chain(clamped).map(String::as_str)
    }

    /// Changes a body.
    pub fn apply<'e>(&'e self, edits: &mut Edits<'e>) -> Result<(), Refused> {
        if let Some(name) = self.refuse.iter().find(|name| edits.get(name).is_some()) {
            return Err(Refused(name.clone()));
        }
        for (from, to) in &self.rename {
            // Two limits under one name: the smaller stays, or a renamed limit would lift the other.
            if let (Some(one), Some(other)) = (number(edits, from), number(edits, to))
                && one < other
            {
                edits.drop(to);
            }
            // `null` is no value: it takes nobody's place.
            if edits.get(to) == Some(b"null") {
                edits.drop(to);
            }
            edits.rename(from, to);
        }
        for name in &self.drop {
            edits.drop(name);
        }
        for (name, value) in &self.default {
            if edits.get(name).is_none() {
                edits.set(name, value.clone());
            }
        }
        for (name, value) in &self.set {
            edits.set(name, value.clone());
        }
        for (name, [low, high]) in &self.clamp {
            if let Some(given) = number(edits, name)
                && !(*low..=*high).contains(&given)
            {
                edits.set(name, Bytes::from(plain(given.clamp(*low, *high))));
            }
        }
        self.messages.apply(edits);
        // `[]` is refused by most ("[] is too short"), and without tools there is nothing to choose among.
        if edits
            .get("tools")
            .is_some_and(|tools| squeezed(tools).as_slice() == b"[]")
        {
            for name in ["tools", "tool_choice", "parallel_tool_calls"] {
                edits.drop(name);
            }
        }
        Ok(())
    }
}

impl MessageRules {
    fn apply(&self, edits: &mut Edits<'_>) {
        if self.roles.is_empty() && self.drop.is_empty() && !self.drop_nulls {
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
            message.drop(|name, value| {
                self.drop.iter().any(|dropped| dropped == name)
                    || (self.drop_nulls && value == b"null")
            });
        });
    }
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

    fn json(value: &serde_json::Value) -> Bytes {
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
            },
        }
    }

    fn applied(body: &str) -> Result<String, Refused> {
        let envelope = Envelope::scan(Bytes::copy_from_slice(body.as_bytes()), |_| false).unwrap();
        let rules = rules();
        let mut edits = envelope.edit();
        rules.apply(&mut edits)?;
        Ok(String::from_utf8(edits.into_rope().to_vec()).unwrap())
    }

    #[test]
    fn each_rule_does_what_it_says() {
        let body = r#"{"logprobs":true,"temperature":1.5,"max_completion_tokens":9,"user":"me","x":[1],
            "messages":[{"role":"developer","name":"a","content":"hi"},{"role":"user","content":null}],"tools":[ ],"tool_choice":"auto"}"#;
        let want = r#"{"temperature":1,"max_tokens":9,"user":"us","x":[1],
            "messages":[{"role":"system","content":"hi"},{"role":"user"}],"top_p":0.5}"#;
        assert_eq!(applied(body).unwrap(), want);
        assert_eq!(applied(r#"{"n":2}"#), Err(Refused("n".into())));
    }

    #[test]
    fn of_two_limits_the_smaller_stays() {
        let limit = |body: &str| {
            let text = applied(body).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["max_tokens"].clone()
        };
        assert_eq!(limit(r#"{"max_tokens":5,"max_completion_tokens":9}"#), 5);
        assert_eq!(limit(r#"{"max_tokens":9,"max_completion_tokens":5}"#), 5);
        assert_eq!(limit(r#"{"max_completion_tokens":5}"#), 5);
    }

    #[test]
    fn values_within_bounds_stay_as_they_were_written() {
        let text = applied(r#"{"temperature":1.0,"top_p":1e0,"tools":[1]}"#).unwrap();
        assert_eq!(
            text,
            r#"{"temperature":1.0,"top_p":1e0,"tools":[1],"user":"us"}"#
        );
    }
}
