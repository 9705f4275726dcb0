//! What is told of settings that have no counterpart here? The words are data, in `words.txt`.

use super::marks::Mark;

/// What is told of a setting.
#[derive(Debug)]
pub(super) struct Word {
    section: &'static str,
    /// A name, or its beginning and `*`.
    name: &'static str,
    /// If it is told of one value only.
    pub value: Option<bool>,
    pub mark: Mark,
    pub text: &'static str,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Words(Vec<Word>);

impl Words {
    /// Reads them. What is no line of the form is left out; a test sees that there is none.
    pub(super) fn read() -> Self {
        let mut section = "";
        let mut words = Vec::new();
        for line in include_str!("words.txt").lines() {
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                section = name;
            }
            let Some((names, mark, text)) = parts(line) else {
                continue;
            };
            words.extend(names.split(' ').map(|written| {
                let (name, value) = written.split_once('=').unwrap_or((written, ""));
                Word {
                    section,
                    name,
                    value: value.parse().ok(),
                    mark,
                    text,
                }
            }));
        }
        Self(words)
    }

    /// What is told of a setting, on or off if it is one of these.
    pub(super) fn of(&self, section: &str, key: &str, value: Option<bool>) -> Option<&Word> {
        let fits = |word: &&Word| {
            let is_so = match word.name.strip_suffix('*') {
                Some(begins) => key.starts_with(begins),
                None => key == word.name,
            };
            is_so && word.section == section && (word.value.is_none() || word.value == value)
        };
        let fitting = self.0.iter().filter(fits);
        fitting.max_by_key(|word| (word.name.len(), word.value.is_some()))
    }
}

fn parts(line: &'static str) -> Option<(&'static str, Mark, &'static str)> {
    let (names, rest) = line.split_once(" = ")?;
    let (mark, text) = rest.split_once(": ")?;
    let mark = Mark::ALL.into_iter().find(|known| known.name() == mark)?;
    Some((names, mark, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_section_a_comment_or_a_word() {
        for line in include_str!("words.txt").lines() {
            let is_other = line.is_empty() || line.starts_with(['#', '[']);
            assert!(is_other || parts(line).is_some(), "{line}");
        }
    }

    #[test]
    fn the_longest_name_that_fits_counts() {
        let words = Words::read();
        let mark = |key| words.of("general_settings", key, None).map(|it| it.mark);
        assert_eq!(mark("database_url"), Some(Mark::Manual));
        assert_eq!(
            mark("database_connection_pool_limit"),
            Some(Mark::Unsupported)
        );
        assert_eq!(mark("database"), None);
        assert!(words.of("router_settings", "database_url", None).is_none());
        let verify = |value| words.of("litellm_settings", "ssl_verify", value);
        assert_eq!(verify(Some(true)).map(|it| it.mark), Some(Mark::Exact));
        assert_eq!(verify(Some(false)).map(|it| it.mark), Some(Mark::Manual));
        assert_eq!(verify(None).map(|it| it.value), Some(None));
    }
}
