//! A secret is a reference first: `env:NAME`, `file:PATH`, or itself. It never shows itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where a secret stands. `Debug` shows the reference, never the secret.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Reference);

#[derive(Clone)]
enum Reference {
    Env(String),
    File(PathBuf),
    Literal(String),
}

/// Why a secret could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// It is the empty text.
    #[error("it is empty")]
    Empty,
    /// The variable is not set, or is empty.
    #[error("{0} is not set")]
    Env(String),
    /// The file cannot be read, or is empty.
    #[error("{} cannot be read: {why}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(if let Some(name) = text.strip_prefix("env:") {
            Reference::Env(name.to_owned())
        } else if let Some(path) = text.strip_prefix("file:") {
            Reference::File(path.into())
        } else {
            Reference::Literal(text)
        })
    }
}

impl Secret {
    /// Reads the secret itself. Relative paths start at `folder`, the configuration file's own.
    pub fn reveal(&self, folder: &Path, environment: &Environment) -> Result<String, Missing> {
        match &self.0 {
            Reference::Env(name) => environment
                .get(name)
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
                .ok_or_else(|| Missing::Env(name.clone())),
            Reference::File(path) => {
                let unreadable = |why: String| Missing::File {
                    path: path.clone(),
                    why,
                };
                let text = std::fs::read_to_string(folder.join(path))
                    .map_err(|e| unreadable(e.to_string()))?;
                match text.trim_end_matches(['\r', '\n']) {
                    "" => Err(unreadable("it is empty".into())),
                    text => Ok(text.to_owned()),
                }
            }
            Reference::Literal(text) if text.is_empty() => Err(Missing::Empty),
            Reference::Literal(text) => Ok(text.clone()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Reference::Env(name) => write!(f, "env:{name}"),
            Reference::File(path) => write!(f, "file:{}", path.display()),
            Reference::Literal(_) => f.write_str("(hidden)"),
        }
    }
}

/// The variables a configuration may refer to: the process's own, or a test's.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Those of this process that are text.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The value of one variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All whose name starts with `prefix`, without it.
    pub fn starting<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .iter()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_where_it_stands_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "from-file\n").unwrap();
        let environment: Environment = [
            ("A".to_owned(), "from-env".to_owned()),
            ("E".to_owned(), String::new()),
        ]
        .into_iter()
        .collect();
        let read = |text: &str| Secret::from(text.to_owned()).reveal(folder.path(), &environment);
        assert_eq!(read("env:A").unwrap(), "from-env");
        assert_eq!(read("file:key").unwrap(), "from-file");
        assert_eq!(read("sk-itself").unwrap(), "sk-itself");
        assert_eq!(
            read(""),
            Err(Missing::Empty),
            "an empty key would be everybody's"
        );
        assert_eq!(read("env:E"), Err(Missing::Env("E".into())));
        assert_eq!(read("env:B").unwrap_err().to_string(), "B is not set");
        assert!(
            read("file:none")
                .unwrap_err()
                .to_string()
                .starts_with("none cannot be read")
        );
        assert_eq!(
            format!("{:?}", Secret::from("sk-itself".to_owned())),
            "(hidden)"
        );
        assert!(!format!("{environment:?}").contains("from-env"));
    }
}
