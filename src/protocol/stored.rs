//! Which stored response is asked for, and what of it? The part of a path behind `/responses/`.
//!
//! <https://platform.openai.com/docs/api-reference/responses>

use http::Method;

/// What is asked of a response that its provider keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'p> {
    /// The response's id.
    pub id: &'p str,
    of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// To have it, or to forget it.
    Itself,
    /// What it was made from.
    Input,
    /// To stop it, where it is made in the background.
    Cancel,
}

impl<'p> Stored<'p> {
    /// Reads a path, with or without `/v1`. None: it names no response, or something that none has.
    pub fn at(path: &'p str) -> Option<Self> {
        let path = path.strip_prefix("/v1").unwrap_or(path);
        let rest = path.strip_prefix("/responses/")?;
        let (id, of) = match rest.split_once('/') {
            None => (rest, Of::Itself),
            Some((id, "input_items")) => (id, Of::Input),
            Some((id, "cancel")) => (id, Of::Cancel),
            Some(_) => return None,
        };
        // It goes into the path of another request: nothing in it may mean anything there.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        (!id.is_empty() && id.bytes().all(is_plain)).then_some(Self { id, of })
    }

    /// The methods that it is asked by, as `Allow` lists them.
    pub(super) fn methods(&self) -> &'static str {
        match self.of {
            Of::Itself => "GET, DELETE",
            Of::Input => "GET",
            Of::Cancel => "POST",
        }
    }

    /// Whether it is asked by this method.
    pub(super) fn takes(&self, method: &Method) -> bool {
        self.methods().split(", ").any(|takes| takes == method)
    }

    /// Where it lies, behind `/responses`.
    pub fn below(&self) -> String {
        let of = match self.of {
            Of::Itself => "",
            Of::Input => "/input_items",
            Of::Cancel => "/cancel",
        };
        format!("/{}{of}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_response_and_what_of_it() {
        for (path, below, methods) in [
            ("/v1/responses/resp_1-A", "/resp_1-A", "GET, DELETE"),
            ("/responses/r/input_items", "/r/input_items", "GET"),
            ("/v1/responses/r/cancel", "/r/cancel", "POST"),
        ] {
            let stored = Stored::at(path).unwrap();
            assert_eq!((&*stored.below(), stored.methods()), (below, methods));
            assert!(path.ends_with(below));
        }
        for path in [
            "/v1/responses",
            "/v1/responses/",
            "/v1/responses/..",
            "/v1/responses/../models",
            "/v1/responses/%2e%2e",
            "/v1/responses/a?b",
            "/v1/responses/a/b",
            "/v1/responses/a/cancel/",
            "/v1/responses//cancel",
            "/v2/responses/a",
        ] {
            assert_eq!(Stored::at(path), None, "{path}");
        }
        let stored = Stored::at("/responses/r").unwrap();
        assert!(stored.takes(&Method::DELETE) && !stored.takes(&Method::POST));
    }
}
