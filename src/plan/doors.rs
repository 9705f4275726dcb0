//! Who may knock, and what opens? From names, pages and secrets that were written to doors and digests.

use super::compile::Compiler;
use crate::admission::Digest;
use crate::admission::door::{self, Door, Pages};
use crate::config::Secret;

impl Compiler<'_> {
    /// Who may knock: at the clients' listener, and at the operators', which no page but its own may call.
    pub(super) fn doors(&mut self) -> (Door, Door) {
        let server = &self.config.server;
        let mut names = Vec::new();
        for (n, text) in server.names.iter().enumerate() {
            match door::name(text) {
                Ok(name) => names.push(name),
                Err(wrong) => {
                    self.flaw(
                        ["server", "names", &n.to_string()],
                        format!("`{text}` {wrong}"),
                    );
                }
            }
        }
        let mut pages = Vec::new();
        for (n, text) in server
            .cors
            .iter()
            .enumerate()
            .filter(|(_, text)| *text != "*")
        {
            match door::origin(text) {
                Ok(origin) => pages.push(origin),
                Err(wrong) => {
                    self.flaw(
                        ["server", "cors", &n.to_string()],
                        format!("`{text}` {wrong}"),
                    );
                }
            }
        }
        let pages = match server.cors.iter().any(|text| text == "*") {
            true => Pages::Any,
            false => Pages::Listed(pages),
        };
        let operators = Door::new(names.clone(), Pages::Own);
        (Door::new(names, pages), operators)
    }

    /// What opens `/admin/*`.
    pub(super) fn admin_token(&mut self) -> Option<Digest> {
        let secret = self.config.admin.token.as_ref()?;
        self.digest_of(["admin", "token"], secret)
    }

    /// The digest of what somebody shows.
    pub(super) fn digest_of<const N: usize>(
        &mut self,
        at: [&str; N],
        secret: &Secret,
    ) -> Option<Digest> {
        match secret.reveal(self.surroundings.folder, self.surroundings.environment) {
            Ok(shown) if shown.trim() != shown => {
                let name = at.last().copied().unwrap_or_default();
                let message = format!("a {name} must not begin or end with white space");
                self.flaw(at, message);
                None
            }
            Ok(shown) => Some(Digest::of(&shown)),
            Err(missing) => {
                self.flaw(at, missing.to_string());
                None
            }
        }
    }
}
