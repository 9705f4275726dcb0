//! What do budgets and prices mean? From what an operator wrote to amounts and rates.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::Passage;
use super::compile::Compiler;
use crate::config::load::suggest;
use crate::config::money::{self, Written};
use crate::config::{self, Config, Diagnostic};
use crate::ledger::{Budget, Durability, Per, Place, Scope, Settings};
use crate::provider::site::Base;
use crate::route::Terms;
use crate::usage::book::Book;
use crate::usage::{Decimal, KINDS, Look, Money, Pictures, Price, Rate, Rates, Stated, Tier};

/// What entries name as the source of a price that the configuration states.
const OWN: &str = "gateway.toml";

/// What `tollgate prices import` writes, beside the configuration.
pub const IMPORTED: &str = "prices.json";

/// A longer list, in bytes, is none: the longest there is has 3 MiB.
const LONGEST: u64 = 64 << 20;

/// The prices in force for the configuration of a folder: those that were imported there, over those that are built in. Or
/// what is wrong with the file.
pub fn book(folder: &Path) -> Result<Book, String> {
    let file = folder.join(IMPORTED);
    let mut text = String::new();
    let read = File::open(&file).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    let text = match read {
        Ok(_) => Some(text.as_str()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    Book::load(text).map_err(|wrong| {
        let advice = "import it again with `tollgate prices import`, or remove it";
        format!("{}: {wrong}; {advice}", file.display())
    })
}

/// Whether what a provider answers costs nothing: by its owner's word, else by its preset's, which speaks of a server of
/// one's own and goes as far as its address is one. `folder` is the configuration's.
pub fn is_free(entry: &config::Provider, folder: &Path) -> bool {
    let is_own = |url: &str| {
        let base = || Base::parse(url, folder);
        url == "echo:" || base().is_ok_and(|base| base.place.is_private())
    };
    let by_preset = || entry.local && entry.base_url.as_deref().is_some_and(is_own);
    entry.free.unwrap_or_else(by_preset)
}

impl Passage {
    /// What a model of the provider costs, as far as the list of prices knows.
    pub(super) fn terms_of(&self, model: &str, book: &Book) -> Terms {
        let section = self.section.as_deref();
        match section.and_then(|section| book.find(section, model)) {
            Some(entry) => Terms {
                price: Some(Arc::new(entry.price.clone())),
                context: entry.context,
                max_output: entry.max_output,
                reasoning: entry.reasoning,
                ..self.terms.clone()
            },
            None => self.terms.clone(),
        }
    }
}

/// How many settled requests may wait for the ledger's file, most with less than a kilobyte: enough for half a minute
/// without a disk at 2,000 a second.
const BACKLOG: usize = 65_536;

/// How the ledger is kept. `folder` is the configuration's.
pub fn ledger(config: &Config, folder: &Path) -> Settings {
    let written = &config.ledger;
    Settings {
        store: match &written.store {
            money::Store::File(file) => Place::File(folder.join(file)),
            money::Store::Memory => Place::Memory,
        },
        durability: match written.durability {
            money::Durability::Process => Durability::Process,
            money::Durability::Power => Durability::Power,
        },
        settle_wait: written.settle_wait,
        keep: written.keep,
        seats: config.server.max_in_flight,
        backlog: BACKLOG,
    }
}

/// The class whose price may depend on what is made.
const IMAGES: &str = "images";

impl Compiler<'_> {
    /// The list of prices: the built-in one, under what was imported beside the configuration.
    pub(super) fn book(&mut self) -> Book {
        book(self.surroundings.folder).unwrap_or_else(|wrong| {
            self.flaw([], wrong);
            Book::default()
        })
    }

    /// What is written about a target's cost goes before what the list of prices says.
    pub(super) fn terms(&mut self, at: &[&str], written: &config::Target, listed: Terms) -> Terms {
        let at: Vec<&str> = at.iter().copied().chain(["price"]).collect();
        let price = written
            .price
            .as_ref()
            .and_then(|price| self.price(&at, price));
        Terms {
            own_price: price.is_some(),
            price: price.map(Arc::new).or(listed.price),
            context: written.context.or(listed.context),
            max_output: written.max_output.or(listed.max_output),
            reasoning: written.reasoning.unwrap_or(listed.reasoning),
            ..listed
        }
    }

    /// Where a provider's models stand in the list of prices.
    pub(super) fn section(
        &mut self,
        name: &str,
        entry: &config::Provider,
        book: &Book,
    ) -> Option<Box<str>> {
        let section = entry.prices.as_deref()?;
        if !book.sections().contains(section) {
            let hint = suggest(section, book.sections().into_iter());
            let message = format!("the list of prices has no section `{section}`{hint}");
            self.flaw(["providers", name, "prices"], message);
        }
        Some(section.into())
    }

    /// What all models of a provider have in common.
    pub(super) fn common_terms(
        &mut self,
        name: &str,
        entry: &config::Provider,
        budget: Option<Budget>,
    ) -> Terms {
        let is_free = is_free(entry, self.surroundings.folder);
        // The preset speaks of a server of one's own; whether this is one, its address does not say.
        if entry.local && !is_free && entry.free.is_none() && entry.prices.is_none() {
            let url = entry.base_url.as_deref().unwrap_or_default();
            self.warnings.push(format!(
                "{name}: `{url}` is not on this machine or a private network, so what it answers is not taken to cost \
                 nothing; write `free = true` or `false`, or `prices`"
            ));
        }
        Terms {
            price: is_free.then(|| Arc::new(Price::free())),
            account: budget.map(|budget| {
                self.owners
                    .account(Scope::Provider, name, budget, &mut self.budgets)
            }),
            ..Terms::default()
        }
    }

    /// The price that is written for a target.
    pub(super) fn price(&mut self, at: &[&str], written: &money::Price) -> Option<Price> {
        let mut stated = self.stated(at, &written.rates)?;
        let mut pictures = None;
        if let Some(images) = &written.images {
            pictures = self.pictures(at, images)?.state(&mut stated);
        }
        let Some(base) = Rates::of(&stated) else {
            self.flaw(
                at.iter().copied(),
                "a price needs both `input` and `output`, or a unit that is no token; write 0 for what costs nothing",
            );
            return None;
        };
        let mut tiers = Vec::new();
        for (n, tier) in written.tiers.iter().enumerate() {
            let n = n.to_string();
            let at: Vec<&str> = at.iter().copied().chain(["tiers", &n]).collect();
            let rates = self.stated(&at, &tier.rates)?;
            if pictures.is_some() && tier.rates.contains_key(IMAGES) {
                let at = at.iter().copied().chain([IMAGES]);
                let message = "is not there where a picture's price depends on its size or quality: that is the same for every \
                               length of the prompt";
                self.flaw(at, message);
                return None;
            }
            tiers.push(Tier {
                above: tier.above,
                // What both sides state is there.
                rates: Rates::over(&stated, &rates)?,
            });
        }
        Some(Price {
            base,
            tiers,
            pictures,
            version: OWN.into(),
        })
    }

    /// What pictures cost by what they are like.
    fn pictures(&mut self, at: &[&str], written: &BTreeMap<String, Written>) -> Option<Pictures> {
        let at: Vec<&str> = at.iter().copied().chain([IMAGES]).collect();
        let flaws = self.flaws.len();
        let mut each = BTreeMap::new();
        for (of, Written(text)) in written {
            // One number is not written as a table.
            let key = (written.len() > 1).then_some(of.as_str());
            let at = at.iter().copied().chain(key);
            match (Look::key(of), Rate::parse(IMAGES, text)) {
                (Err(wrong), _) => self.flaw(at, wrong.to_string()),
                (_, Err(wrong)) => self.flaw(at, format!("`{text}` {wrong}")),
                (Ok(look), Ok(rate)) => drop(each.insert(look, rate)),
            }
        }
        if written.is_empty() {
            let message = "names no price: write one number for all, or one for each size and quality, such as { \"1024x1024\" = \
                           0.04, \"1024x1024/hd\" = 0.08 }";
            self.flaw(at, message);
        }
        (self.flaws.len() == flaws).then(|| Pictures::of(each))?
    }

    fn stated(&mut self, at: &[&str], written: &BTreeMap<String, Written>) -> Option<Stated> {
        let mut stated = Stated::default();
        let mut is_sound = true;
        for (name, Written(text)) in written {
            let at: Vec<&str> = at.iter().copied().chain([name.as_str()]).collect();
            let kind = KINDS.iter().position(|kind| kind == name);
            match (
                kind.and_then(|n| stated.get_mut(n)),
                Rate::parse(name, text),
            ) {
                (None, _) => {
                    let hint = suggest(name, KINDS.into_iter().chain(["tiers"]));
                    self.flaw(
                        at.iter().copied(),
                        format!("nothing that is billed is called `{name}`{hint}"),
                    );
                    is_sound = false;
                }
                (Some(_), Err(wrong)) => {
                    self.flaw(at.iter().copied(), format!("`{text}` {wrong}"));
                    is_sound = false;
                }
                (Some(slot), Ok(rate)) => *slot = Some(rate),
            }
        }
        is_sound.then_some(stated)
    }
}

/// What a budget means.
pub(super) fn budget(
    place: &[&str],
    written: Option<&money::Budget>,
    flaws: &mut Vec<Diagnostic>,
) -> Option<Budget> {
    let written = written?;
    let at = |field| -> Vec<&str> { place.iter().copied().chain([field]).collect() };
    let Written(usd) = &written.usd;
    let limit = Money::parse(usd);
    if let Err(wrong) = limit {
        let message = format!("`{usd}` {wrong}; a billionth of a dollar is the smallest part");
        flaws.push(Diagnostic::new(at("usd"), message));
    }
    let warn = written.warn.as_ref().map(|Written(text)| {
        let part = part(text);
        if part.is_none() {
            let message = format!("`{text}` is no part of a whole; write a number such as 0.8");
            flaws.push(Diagnostic::new(at("warn"), message));
        }
        part
    });
    let per = match written.per {
        money::Per::Hour => Per::Hour,
        money::Per::Day => Per::Day,
        money::Per::Week => Per::Week,
        money::Per::Month => Per::Month,
        money::Per::Total => Per::Total,
    };
    let limit = limit.ok()?;
    match warn {
        Some(None) => None,
        warn => Some(Budget {
            limit,
            per,
            warn: warn.flatten(),
        }),
    }
}

/// A part of a whole, in millionths.
pub(super) fn part(text: &str) -> Option<u32> {
    let millionths = Decimal::parse(text, 6).ok().and_then(Decimal::exact)?;
    let part = u32::try_from(millionths).ok();
    part.filter(|n| (1..=1_000_000).contains(n))
}
