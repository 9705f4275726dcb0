//! What is wrong in a configuration, and where?

use std::fmt;

/// One mistake in a configuration: where it is, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The path to it (`models`, `fast`, `targets`, `1`); empty for the file as a whole.
    pub at: Vec<String>,
    /// One sentence for the operator.
    pub message: String,
}

impl Diagnostic {
    /// A mistake at a path.
    pub fn new<S: Into<String>>(
        at: impl IntoIterator<Item = S>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            at: at.into_iter().map(Into::into).collect(),
            message: message.into(),
        }
    }
}

/// The path as an operator would write it, then the sentence: `models.fast.targets[1]: …`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.at.is_empty() { "" } else { ": " };
        write!(f, "{}{colon}{}", Place(&self.at), self.message)
    }
}

/// A path as an operator would write it: `models.fast.targets[1]`.
pub(super) struct Place<'a>(pub(super) &'a [String]);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names stand second everywhere else, and a name may be a number.
        let first_place = match self.0.first().map(String::as_str) {
            Some("server" | "admin" | "ledger" | "defaults" | "total") => 2,
            _ => 3,
        };
        for (n, part) in self.0.iter().enumerate() {
            let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if n >= first_place && part.parse::<usize>().is_ok() {
                write!(f, "[{part}]")?;
            } else {
                let dot = if n == 0 { "" } else { "." };
                if part.chars().all(bare) {
                    write!(f, "{dot}{part}")?;
                } else {
                    write!(f, "{dot}\"{part}\"")?;
                }
            }
        }
        Ok(())
    }
}

/// A name may be written with anything in it; what is told of it is one line all the same.
pub(super) fn on_one_line(text: &str) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().collect(),
        false => String::from(c),
    };
    text.chars().map(shown).collect()
}
