//! What are pictures like, as far as their price depends on it? Their size and their quality, as requests and answers
//! write them (platform.openai.com/docs/api-reference/images).

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What pictures are like, or are to be like.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[serde(default)]
pub struct Look {
    /// How large they are.
    #[serde(skip_serializing_if = "Size::is_any")]
    pub size: Size,
    /// How well they are drawn.
    #[serde(skip_serializing_if = "Quality::is_any")]
    pub quality: Quality,
}

/// How large a picture is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Size {
    /// Whichever: nobody says, or it is left to the model.
    #[default]
    Any,
    /// Of so many pixels.
    Of {
        /// From left to right.
        width: u16,
        /// From top to bottom.
        height: u16,
    },
    /// What is said is nothing that is known here.
    Unknown,
}

/// How well a picture is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quality {
    /// However: nobody says, or it is left to the model.
    #[default]
    Any,
    /// `low`
    Low,
    /// `medium`
    Medium,
    /// `high`
    High,
    /// `standard`
    Standard,
    /// `hd`
    Hd,
    /// What is said is nothing that is known here.
    Unknown,
}

/// What leaves a choice to the model.
const AUTO: &str = "auto";
/// How a price is called that is of whatever no other is of.
const ANY: &str = "any";

/// The qualities that are known, by their names.
const QUALITIES: [(&str, Quality); 5] = [
    ("low", Quality::Low),
    ("medium", Quality::Medium),
    ("high", Quality::High),
    ("standard", Quality::Standard),
    ("hd", Quality::Hd),
];

/// What a price of pictures is of is said in a way that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLook {
    /// The model's own choice.
    #[error(
        "`auto` has no price of its own: whoever asks for it may get what any of the others is of; write `any` for what no \
         other is of"
    )]
    Auto,
    /// One number.
    #[error("`{0}` is no size: write the width and the height, such as \"1024x1024\"")]
    Number(String),
    /// Two of one sort.
    #[error(
        "`{0}` names two: write one size, one quality, or a size and a quality as \"1024x1024/hd\""
    )]
    Twice(String),
    /// The quality before the size.
    #[error("`{0}` begins with the quality: write \"{1}\"")]
    Order(String, Look),
    /// Anything else.
    #[error(
        "`{0}` is neither a size nor a quality: write a size such as \"1024x1024\", a quality (low, medium, high, standard \
         or hd), both as \"1024x1024/hd\", or `any` for what no other is of"
    )]
    Word(String),
}

impl Size {
    /// As requests and answers have it.
    pub fn read(text: &str) -> Self {
        let side = |text: &str| {
            let is_plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| is_plain)
        };
        let of = || {
            let (width, height) = text.split_once('x')?;
            let (width, height) = (side(width)?, side(height)?);
            Some(Self::Of { width, height })
        };
        match text {
            AUTO => Self::Any,
            _ => of().unwrap_or(Self::Unknown),
        }
    }

    /// Whether nobody says.
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

impl Quality {
    /// As requests and answers have it.
    pub fn read(text: &str) -> Self {
        let mut known = QUALITIES.into_iter();
        match known.find(|(name, _)| *name == text) {
            Some((_, quality)) => quality,
            None if text == AUTO => Self::Any,
            None => Self::Unknown,
        }
    }

    /// Whether nobody says.
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

impl Look {
    /// Nobody says anything of it.
    pub const ANY: Self = Self {
        size: Size::Any,
        quality: Quality::Any,
    };

    /// Whether nobody says anything of it.
    pub fn is_any(&self) -> bool {
        *self == Self::ANY
    }

    /// What of it is known here.
    #[must_use]
    pub fn known(self) -> Self {
        Self {
            size: match self.size {
                Size::Unknown => Size::Any,
                size => size,
            },
            quality: match self.quality {
                Quality::Unknown => Quality::Any,
                quality => quality,
            },
        }
    }

    /// What it says, and where it says nothing what another does.
    #[must_use]
    pub fn over(self, other: Self) -> Self {
        Self {
            size: if self.size.is_any() {
                other.size
            } else {
                self.size
            },
            quality: if self.quality.is_any() {
                other.quality
            } else {
                self.quality
            },
        }
    }

    /// What is true of pictures like this and of those like another.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self {
            size: if self.size == other.size {
                self.size
            } else {
                Size::Any
            },
            quality: if self.quality == other.quality {
                self.quality
            } else {
                Quality::Any
            },
        }
    }

    /// What a price is of: `1024x1024`, `hd`, `1024x1024/hd`, or `any`.
    pub fn key(text: &str) -> Result<Self, NoLook> {
        let one = |part: &str| match (Size::read(part), Quality::read(part)) {
            _ if part == AUTO => Err(NoLook::Auto),
            (size @ Size::Of { .. }, _) => Ok(Self { size, ..Self::ANY }),
            (_, Quality::Unknown) => Err(match part.bytes().all(|byte| byte.is_ascii_digit()) {
                true if !part.is_empty() => NoLook::Number(part.to_owned()),
                _ => NoLook::Word(part.to_owned()),
            }),
            (_, quality) => Ok(Self {
                quality,
                ..Self::ANY
            }),
        };
        let Some((first, second)) = text.split_once('/') else {
            return if text == ANY {
                Ok(Self::ANY)
            } else {
                one(text)
            };
        };
        let (first, second) = (one(first)?, one(second)?);
        match (first.size.is_any(), second.size.is_any()) {
            (false, true) => Ok(first.over(second)),
            (true, false) => Err(NoLook::Order(text.to_owned(), second.over(first))),
            _ => Err(NoLook::Twice(text.to_owned())),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(ANY),
            Self::Of { width, height } => write!(f, "{width}x{height}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut known = QUALITIES.into_iter();
        let name = known.find(|(_, quality)| quality == self);
        f.write_str(match (name, self) {
            (Some((name, _)), _) => name,
            (None, Self::Any) => ANY,
            (None, _) => "unknown",
        })
    }
}

/// As [`Look::key`] reads it.
impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, quality } = self;
        match (size.is_any(), quality.is_any()) {
            (false, false) => write!(f, "{size}/{quality}"),
            (true, false) => quality.fmt(f),
            (_, true) => size.fmt(f),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Quality {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self::read(&Cow::<'de, str>::deserialize(d)?))
    }
}

impl<'de> Deserialize<'de> for Quality {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self::read(&Cow::<'de, str>::deserialize(d)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_two_numbers_and_nothing_else() {
        let of = |width, height| Size::Of { width, height };
        assert_eq!(Size::read("1024x1792"), of(1024, 1792));
        assert_eq!(Size::read("auto"), Size::Any);
        for unknown in [
            "",
            "x",
            "1024",
            "1024x",
            "x1024",
            "1024X1024",
            "1024x1024x3",
            "+1x1",
            "01x1",
            "0x1",
            " 1x1",
            "65536x1",
            "1024-x-1024",
            "2K",
            "any",
            "unknown",
        ] {
            assert_eq!(Size::read(unknown), Size::Unknown, "{unknown}");
        }
        assert_eq!(Quality::read("hd"), Quality::Hd);
        assert_eq!(Quality::read("auto"), Quality::Any);
        for unknown in ["", "HD", "ultra", "any", "unknown"] {
            assert_eq!(Quality::read(unknown), Quality::Unknown, "{unknown}");
        }
    }

    #[test]
    fn what_a_price_is_of_is_read_as_it_is_shown() {
        for text in [
            "1024x1024",
            "hd",
            "1024x1024/hd",
            "any",
            "1x65535/standard",
            "low",
        ] {
            assert_eq!(Look::key(text).unwrap().to_string(), text);
        }
        for (text, wrong) in [
            (
                "1024",
                "`1024` is no size: write the width and the height, such as \"1024x1024\"",
            ),
            (
                "big",
                "`big` is neither a size nor a quality: write a size such as",
            ),
            ("", "`` is neither a size nor a quality"),
            ("1024x1024/", "`` is neither a size nor a quality"),
            ("1024x1024/any", "`any` is neither a size nor a quality"),
            ("auto", "`auto` has no price of its own"),
            ("1024x1024/auto", "`auto` has no price of its own"),
            (
                "hd/1024x1024",
                "`hd/1024x1024` begins with the quality: write \"1024x1024/hd\"",
            ),
            (
                "hd/low",
                "`hd/low` names two: write one size, one quality, or",
            ),
            ("1x1/1x1", "`1x1/1x1` names two"),
            ("1x1/hd/low", "`hd/low` is neither a size nor a quality"),
        ] {
            let told = Look::key(text).unwrap_err().to_string();
            assert!(told.starts_with(wrong), "{text}: {told}");
        }
    }

    #[test]
    fn what_is_logged_is_read_back() {
        for look in ["any", "1024x1024", "hd", "1024x1024/hd"] {
            let look = Look::key(look).unwrap();
            let text = serde_json::to_string(&look).unwrap();
            assert_eq!(serde_json::from_str::<Look>(&text).unwrap(), look, "{text}");
        }
        let unknown = Look {
            size: Size::Unknown,
            quality: Quality::Unknown,
        };
        let text = serde_json::to_string(&unknown).unwrap();
        assert_eq!(text, r#"{"size":"unknown","quality":"unknown"}"#);
        assert_eq!(serde_json::from_str::<Look>(&text).unwrap(), unknown);
        assert_eq!(serde_json::to_string(&Look::ANY).unwrap(), "{}");
    }

    #[test]
    fn one_is_laid_over_another_part_by_part() {
        let [one, other] = ["1024x1024/hd", "low"].map(|text| Look::key(text).unwrap());
        assert_eq!(other.over(one).to_string(), "1024x1024/low");
        assert_eq!(one.over(other), one);
        assert_eq!(one.common(other), Look::ANY);
        assert_eq!(one.common(other.over(one)).to_string(), "1024x1024");
    }
}
