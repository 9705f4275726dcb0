//! What stands in the file, as a tree that can be laid over another and changed at a path.
//!
//! It is made of what was parsed already, and only once: with many keys there is much of it.

use figment::value::{Dict, Value};
use toml_edit::{ImDocument, Item, TableLike};

/// A file as a tree.
pub(super) fn of(document: &ImDocument<String>) -> Dict {
    let text = Text {
        raw: document.raw(),
    };
    text.branches(document.as_table(), Numbers::Counts)
}

/// What numbers with a fraction are.
#[derive(Clone, Copy)]
enum Numbers {
    /// Numbers.
    Counts,
    /// Amounts of money, and shares: they stay as they are written, and never become floats.
    Amounts,
}

/// What the parts of a document have their places in.
struct Text<'d> {
    raw: &'d str,
}

impl Text<'_> {
    fn branches(&self, table: &dyn TableLike, numbers: Numbers) -> Dict {
        let fields = table.iter().filter_map(|(name, item)| {
            let numbers = match name {
                "budget" | "hedge" | "price" => Numbers::Amounts,
                _ => numbers,
            };
            Some((name.to_owned(), self.branch(item, numbers)?))
        });
        fields.collect()
    }

    fn branch(&self, item: &Item, numbers: Numbers) -> Option<Value> {
        match item {
            Item::None => None,
            Item::Value(value) => Some(self.leaf(value, numbers)),
            Item::Table(table) => Some(Value::from(self.branches(table, numbers))),
            Item::ArrayOfTables(list) => {
                let tables = list.iter().map(|table| self.branches(table, numbers));
                Some(Value::from(tables.map(Value::from).collect::<Vec<_>>()))
            }
        }
    }

    fn leaf(&self, value: &toml_edit::Value, numbers: Numbers) -> Value {
        use toml_edit::Value as Written;
        match value {
            Written::String(text) => Value::from(text.value().as_str()),
            Written::Integer(number) => Value::from(*number.value()),
            Written::Boolean(is) => Value::from(*is.value()),
            Written::Float(number) => {
                let text = number.span().and_then(|span| self.raw.get(span));
                match (numbers, text) {
                    (Numbers::Amounts, Some(text)) => Value::from(text),
                    _ => Value::from(*number.value()),
                }
            }
            Written::Datetime(moment) => Value::from(moment.value().to_string()),
            Written::Array(list) => {
                let list = list.iter().map(|value| self.leaf(value, numbers));
                Value::from(list.collect::<Vec<_>>())
            }
            Written::InlineTable(table) => Value::from(self.branches(table, numbers)),
        }
    }
}

/// Lays what is written over a preset, table by table.
pub(super) fn lay(written: &mut Value, preset: &Value) {
    let (Value::Dict(_, fields), Value::Dict(_, under)) = (written, preset) else {
        return;
    };
    for (name, value) in under {
        match fields.get_mut(name) {
            Some(field) => lay(field, value),
            None => drop(fields.insert(name.clone(), value.clone())),
        }
    }
}

/// What stands at a path.
pub(super) fn lookup<'a>(tree: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(tree, |value, part| match value {
        Value::Dict(_, fields) => fields.get(part),
        Value::Array(_, list) => list.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Replaces the value at a path, or takes it out. False if there is none.
pub(super) fn put(tree: &mut Value, path: &[String], new: Option<Value>) -> bool {
    let Some((part, rest)) = path.split_first() else {
        return false;
    };
    match tree {
        Value::Dict(_, fields) if rest.is_empty() => match new {
            Some(new) => fields.insert(part.clone(), new).is_some(),
            None => fields.remove(part).is_some(),
        },
        Value::Dict(_, fields) => fields.get_mut(part).is_some_and(|v| put(v, rest, new)),
        Value::Array(_, list) => match part.parse::<usize>() {
            Ok(n) if n < list.len() && rest.is_empty() => {
                match (new, list.get_mut(n)) {
                    (Some(new), Some(old)) => *old = new,
                    _ => drop(list.remove(n)),
                }
                true
            }
            Ok(n) => list.get_mut(n).is_some_and(|v| put(v, rest, new)),
            Err(_) => false,
        },
        _ => false,
    }
}
