//! `tollgate import`: how does another gateway's configuration read in tollgate's words?
//!
//! From LiteLLM's config.yaml to a gateway.toml, in one walk: `yaml` reads the text as a tree, `marks` numbers its values,
//! `settings` and `routing` read what holds for all, `deployments` what each entry of `model_list` says, with `sites` for
//! whom it asks; `models` and `targets` put them together, and `toml` writes it. Every value of the file has a mark in the
//! end: exact, approximate, manual or unsupported. No key or other secret is ever written, or told.

mod yaml;
mod marks;
mod words;
mod amounts;
mod settings;
mod routing;
mod names;
mod sites;
mod params;
mod prices;
mod deployments;
mod models;
mod targets;
mod fallbacks;
mod toml;

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::anyhow;

pub use marks::Mark;

use super::Failed;
use marks::{Marks, shown};
use routing::Routing;
use settings::Whole;
use sites::{Reading, Secrets};
use yaml::{Node, Value};

/// A longer file, in bytes, is no configuration.
const LONGEST: u64 = 4 << 20;

/// What a configuration became.
#[derive(Debug)]
pub struct Imported {
    /// The gateway.toml, with what is to be told of it.
    pub text: String,
    /// How many values have each mark, in the order of [`Mark::ALL`].
    pub counts: [usize; 4],
}

/// Why a file cannot be imported, and where in it that is.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    line: Option<usize>,
    message: String,
}

impl Wrong {
    fn at(line: usize, message: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            message: message.into(),
        }
    }

    fn whole(message: impl Into<String>) -> Self {
        Self {
            line: None,
            message: message.into(),
        }
    }
}

/// What follows the file's name: `:3: …`.
impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", shown(&self.message))
    }
}

impl std::error::Error for Wrong {}

/// Reads a file of LiteLLM's and writes a gateway.toml, to standard output or to a file.
#[expect(
    clippy::print_stderr,
    reason = "what was written may go to a file, and this must not"
)]
pub fn litellm(file: &Path, output: Option<&Path>, force: bool) -> Result<(), Failed> {
    let text = read(file)?;
    let name = file.file_name().unwrap_or(file.as_os_str());
    let imported = translate(&name.to_string_lossy(), &text)
        .map_err(|wrong| Failed::User(anyhow!("{}{wrong}", file.display())))?;
    match output {
        None => super::print(&[imported.text.trim_end().to_owned()]),
        Some(output) => write(output, &imported.text, force)?,
    }
    let counts = counted(imported.counts);
    let written = output.map_or_else(
        || "standard output".to_owned(),
        |output| output.display().to_string(),
    );
    eprintln!("{}: {counts}", file.display());
    eprintln!(
        "{written}: what differs stands beside what it became, and every value in the list at the end; `tollgate check` reads it"
    );
    Ok(())
}

fn read(file: &Path) -> Result<String, Failed> {
    let of = |e: std::io::Error| {
        Failed::User(anyhow!(
            "{}: {e}; name LiteLLM's config.yaml",
            file.display()
        ))
    };
    let mut bytes = Vec::new();
    let open = File::open(file).map_err(of)?;
    open.take(LONGEST + 1).read_to_end(&mut bytes).map_err(of)?;
    if bytes.len() as u64 > LONGEST {
        let message = format!(
            "{}: longer than {} MiB; that is no configuration of LiteLLM's",
            file.display(),
            LONGEST >> 20
        );
        return Err(Failed::User(anyhow::Error::msg(message)));
    }
    String::from_utf8(bytes).map_err(|e| {
        let before = e
            .as_bytes()
            .get(..e.utf8_error().valid_up_to())
            .unwrap_or_default();
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let message = format!(
            "{}:{line}: this is no text in UTF-8; save it as such",
            file.display()
        );
        Failed::User(anyhow::Error::msg(message))
    })
}

fn write(output: &Path, text: &str, force: bool) -> Result<(), Failed> {
    let mut options = OpenOptions::new();
    options.write(true);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let written = options
        .open(output)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| {
        let name = output.display();
        let message = match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                format!("{name} is there already; --force writes over it")
            }
            _ => format!("{name}: {e}"),
        };
        Failed::User(anyhow::Error::msg(message))
    })
}

/// How many values have which mark, in words.
fn counted(counts: [usize; 4]) -> String {
    let each = Mark::ALL.into_iter().zip(counts);
    let each: Vec<String> = each
        .map(|(mark, n)| format!("{n} {}", mark.name()))
        .collect();
    let all: usize = counts.iter().sum();
    format!(
        "{all} value{}: {}",
        if all == 1 { "" } else { "s" },
        each.join(", ")
    )
}

/// Translates a config.yaml of LiteLLM's proxy; `name` is what it is called in what is told of it.
pub fn translate(name: &str, text: &str) -> Result<Imported, Wrong> {
    let mut root = yaml::read(text)?;
    shaped(&root)?;
    let mut marks = Marks::of(&mut root)?;
    let mut secrets = Secrets::default();
    secrets.take_names(&root);
    let routing = Routing::read(&root, &mut marks)?;
    let variables = settings::set(&root);
    let mut reading = Reading {
        marks: &mut marks,
        secrets: &mut secrets,
        variables: &variables,
    };
    let entries = root
        .get("model_list")
        .map(Node::elements)
        .unwrap_or_default();
    let read = |entry| reading.deployment(entry, &routing.common);
    let deployments = entries.iter().filter_map(read).collect();
    let written = models::assemble(deployments, &routing, &mut marks);
    let whole = Whole::read(&root, &mut marks);
    marks.close();
    let mut body = String::new();
    whole.server.write(&mut body);
    for section in [&whole.admin] {
        if !section.is_empty() {
            section.write(&mut body);
        }
    }
    written.providers.write(&routing.notes, &mut body);
    written
        .models
        .iter()
        .for_each(|model| model.write(&mut body));
    let rest = [&whole.defaults, &whole.total];
    let rest = rest.into_iter().filter(|section| !section.is_empty());
    whole
        .keys
        .iter()
        .chain(rest)
        .for_each(|section| section.write(&mut body));
    let counts = marks.counts();
    let text = format!("{}{body}{}", head(name, counts, &body), tail(name, &marks));
    Ok(Imported { text, counts })
}

/// What stands above all.
fn head(name: &str, counts: [usize; 4], body: &str) -> String {
    let mut head = format!(
        "# From {}, by `tollgate import litellm`. {}.\n",
        shown(name),
        counted(counts)
    );
    head.push_str("# What differs stands beside what it became; the list at the end has every value of the file.\n");
    let named = body
        .split("\"env:")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let named: BTreeSet<&str> = named.collect();
    if !named.is_empty() {
        head.push_str("# It reads these variables:");
        let mut width = 27;
        for name in named {
            if width + name.len() > 115 {
                head.push_str("\n#  ");
                width = 3;
            }
            width += name.len() + 1;
            let _ = write!(head, " {name}");
        }
        head.push('\n');
    }
    head
}

/// What stands below all.
fn tail(name: &str, marks: &Marks) -> String {
    format!(
        "\n# What became of each value of {}, the worst first.\n{}",
        shown(name),
        marks.table()
    )
}

/// The sections that only a configuration of LiteLLM's has.
const SECTIONS: [&str; 6] = [
    "model_list",
    "litellm_settings",
    "general_settings",
    "router_settings",
    "environment_variables",
    "include",
];

/// Whether it looks like a configuration of LiteLLM's, as far as that goes without reading it.
fn shaped(root: &Node) -> Result<(), Wrong> {
    if !matches!(root.value, Value::Map(_)) {
        let message = format!(
            "the file is {}; a configuration of LiteLLM's is a map with a `model_list`",
            root.kind()
        );
        return Err(Wrong::at(root.line, message));
    }
    if SECTIONS.iter().all(|section| root.get(section).is_none()) {
        let message = "this is no configuration of LiteLLM's proxy: it has none of `model_list`, `litellm_settings`, `general_settings` and `router_settings`";
        return Err(Wrong::whole(message));
    }
    for section in [
        "litellm_settings",
        "general_settings",
        "router_settings",
        "environment_variables",
    ] {
        must_be_map(root, section)?;
    }
    let Some(list) = root.get("model_list").filter(|list| !list.is_null()) else {
        return Ok(());
    };
    if !matches!(list.value, Value::List(_)) {
        let message = format!(
            "`model_list` is {}; it is a list of entries, each with a dash before it",
            list.kind()
        );
        return Err(Wrong::at(list.line, message));
    }
    for entry in list.elements() {
        if !matches!(entry.value, Value::Map(_)) {
            let message = format!(
                "an entry of `model_list` is {}; it is a map with `model_name` and `litellm_params`",
                entry.kind()
            );
            return Err(Wrong::at(entry.line, message));
        }
        for part in ["litellm_params", "model_info"] {
            must_be_map(entry, part)?;
        }
    }
    Ok(())
}

fn must_be_map(node: &Node, part: &str) -> Result<(), Wrong> {
    let Some(found) = node.get(part) else {
        return Ok(());
    };
    match found.value {
        Value::Map(_) => Ok(()),
        _ if found.is_null() => Ok(()),
        _ => {
            let message = format!(
                "`{part}` is {}; it is a map of names and values",
                found.kind()
            );
            Err(Wrong::at(found.line, message))
        }
    }
}

/// What to import, from whom.
#[derive(Debug, clap::Subcommand)]
pub enum Import {
    /// Write a gateway.toml that does what a config.yaml of LiteLLM's proxy does
    ///
    /// Each of its values is marked: exact, approximate (with what differs), manual (with what to do) or unsupported (with
    /// why), beside what it became and in a list at the end. Keys that stand in the file become variables, and are not told.
    Litellm {
        /// What LiteLLM's proxy is started with
        #[arg(value_name = "CONFIG.YAML")]
        file: PathBuf,
        /// Where to write it; default: standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Write over a file that is there
        #[arg(long, requires = "output")]
        force: bool,
    },
}
