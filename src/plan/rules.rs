//! From `rules` to [`Rules`]: those for some models laid over those for all, and every value written as JSON once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::Passage;
use super::compile::{Compiler, quoted};
use crate::config::{self, Diagnostic};
use crate::protocol::demand;
use crate::provider::Rules;
use crate::provider::rules::{MessageRules, Unknown};
use crate::route::Route;

/// Members that tollgate itself acts on, whatever the rules.
const ACTED_ON: [&str; 4] = ["model", "stream", "stream_format", "stream_options"];

/// Members that a rule or tollgate itself acts on.
pub(super) fn acted_on(
    providers: &HashMap<Box<str>, Passage>,
    models: &BTreeMap<Box<str>, Arc<Route>>,
) -> HashSet<Box<str>> {
    let rules = providers.values().flat_map(|passage| {
        let some = passage.rules_for.iter().map(|(_, rules)| &**rules);
        some.chain([&*passage.rules])
    });
    let rules = rules.chain(models.values().map(|route| &*route.rules));
    let ours = ACTED_ON.into_iter().chain(demand::acted_on());
    let theirs = rules.flat_map(Rules::names).map(Box::from);
    theirs.chain(ours.map(Box::from)).collect()
}

impl Compiler<'_> {
    /// For each pattern of a provider's models the rules in force, the longest pattern first.
    pub(super) fn rules_for(
        &mut self,
        name: &str,
        entry: &config::Provider,
    ) -> Vec<(Box<str>, Arc<Rules>)> {
        let mut all = Vec::new();
        for (pattern, own) in &entry.rules_for {
            let at = ["providers", name, "rules_for", pattern];
            let rules = self.rules(&at, own, &laid_over(&entry.rules, own));
            all.push((pattern.as_str().into(), Arc::new(rules)));
        }
        all.sort_by_key(|(pattern, _): &(Box<str>, _)| std::cmp::Reverse(pattern.len()));
        all
    }

    /// The rules in force, of which `own` are written at this place and checked.
    pub(super) fn rules(
        &mut self,
        at: &[&str],
        own: &config::Rules,
        in_force: &config::Rules,
    ) -> Rules {
        let mut flaw = |field: &[&str], message: String| {
            let at = at.iter().chain(field).copied();
            self.flaws.push(Diagnostic::new(at, message));
        };
        for (member, [low, high]) in &own.clamp {
            if low.partial_cmp(high).is_none_or(std::cmp::Ordering::is_gt) {
                let message = format!("the lowest value, {low}, is above the highest, {high}");
                flaw(&["clamp", member], message);
            }
        }
        // What is left out of each request would be another request.
        let needed = match own.unknown {
            None | Some(config::Unknown::Forward) => &[][..],
            Some(config::Unknown::Refuse) => &["model"],
            Some(config::Unknown::Drop) => &["model", "stream"],
        };
        let is_known = |name: &&&str| in_force.known.iter().any(|known| known == **name);
        if let Some(missing) = needed.iter().find(|name| !is_known(name)) {
            let message =
                format!("name every member it knows in `known`; `{missing}` is not among them");
            flaw(&["unknown"], message);
        }
        ready(in_force)
    }
}

/// As they are applied.
fn ready(entry: &config::Rules) -> Rules {
    let values = |values: &BTreeMap<String, serde_json::Value>| -> Vec<(String, Bytes)> {
        values
            .iter()
            .map(|(name, value)| (name.clone(), Bytes::from(value.to_string())))
            .collect()
    };
    let rename = entry.rename.iter().filter(|(from, to)| from != to);
    let clamp = entry.clamp.iter().filter(|(_, [low, high])| low <= high);
    let messages = &entry.messages;
    Rules {
        refuse: entry.refuse.clone(),
        rename: rename
            .map(|(from, to)| (from.clone(), to.clone()))
            .collect(),
        drop: entry.drop.clone(),
        known: entry.known.clone(),
        unknown: match entry.unknown {
            None | Some(config::Unknown::Forward) => Unknown::Forward,
            Some(config::Unknown::Drop) => Unknown::Drop,
            Some(config::Unknown::Refuse) => Unknown::Refuse,
        },
        default: values(&entry.default),
        set: values(&entry.set),
        clamp: clamp.map(|(name, range)| (name.clone(), *range)).collect(),
        messages: MessageRules {
            roles: messages
                .roles
                .iter()
                .map(|(old, new)| (old.clone(), quoted(new)))
                .collect(),
            join_text: messages.join_text.unwrap_or(false),
            empty_content: messages.empty_content.unwrap_or(false),
            drop: messages.drop.clone(),
            known: messages.known.clone(),
            drop_nulls: messages.drop_nulls.unwrap_or(false),
        },
    }
}

/// Lists are joined, tables overridden by key, single values replaced.
fn laid_over(all: &config::Rules, some: &config::Rules) -> config::Rules {
    let config::Rules {
        refuse,
        rename,
        drop,
        known,
        unknown,
        default,
        set,
        clamp,
        messages,
    } = some;
    config::Rules {
        refuse: [&all.refuse[..], refuse].concat(),
        rename: by_key(&all.rename, rename),
        drop: [&all.drop[..], drop].concat(),
        known: [&all.known[..], known].concat(),
        unknown: unknown.or(all.unknown),
        default: by_key(&all.default, default),
        set: by_key(&all.set, set),
        clamp: by_key(&all.clamp, clamp),
        messages: config::MessageRules {
            roles: by_key(&all.messages.roles, &messages.roles),
            join_text: messages.join_text.or(all.messages.join_text),
            empty_content: messages.empty_content.or(all.messages.empty_content),
            drop: [&all.messages.drop[..], &messages.drop].concat(),
            known: [&all.messages.known[..], &messages.known].concat(),
            drop_nulls: messages.drop_nulls.or(all.messages.drop_nulls),
        },
    }
}

fn by_key<V: Clone>(all: &BTreeMap<String, V>, some: &BTreeMap<String, V>) -> BTreeMap<String, V> {
    let mut both = all.clone();
    both.extend(some.clone());
    both
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::presets;

    fn rules(text: &str) -> config::Rules {
        presets(text).unwrap()
    }

    #[test]
    fn lists_are_joined_tables_overridden_by_key_and_single_values_replaced() {
        let all = rules(
            "refuse = [\"a\"]\nrename = { b = \"c\", d = \"e\" }\ndrop = [\"f\"]\nknown = [\"g\"]\nunknown = \"drop\"\n\
             default = { h = 1 }\nset = { i = 1 }\nclamp = { j = [0, 1], k = [0, 1] }\n\
             messages = { roles = { l = \"m\" }, join_text = true, drop = [\"n\"], known = [\"o\"], drop_nulls = true }",
        );
        let some = rules(
            "refuse = [\"A\"]\nrename = { b = \"C\" }\ndrop = [\"F\"]\nknown = [\"G\"]\nunknown = \"refuse\"\n\
             default = { h = 2 }\nset = { I = 2 }\nclamp = { j = [0, 2] }\n\
             messages = { roles = { l = \"M\" }, join_text = false, empty_content = true, drop = [\"N\"], known = [\"O\"] }",
        );
        let both = rules(
            "refuse = [\"a\", \"A\"]\nrename = { b = \"C\", d = \"e\" }\ndrop = [\"f\", \"F\"]\nknown = [\"g\", \"G\"]\nunknown = \"refuse\"\n\
             default = { h = 2 }\nset = { i = 1, I = 2 }\nclamp = { j = [0, 2], k = [0, 1] }\n\
             messages = { roles = { l = \"M\" }, join_text = false, empty_content = true, drop = [\"n\", \"N\"], known = [\"o\", \"O\"], drop_nulls = true }",
        );
        let same = |one: &config::Rules, other: &config::Rules| {
            assert_eq!(format!("{one:?}"), format!("{other:?}"));
        };
        same(&laid_over(&all, &some), &both);
        same(&laid_over(&all, &config::Rules::default()), &all);
    }
}
