//! One `manifests-config-layers.json` document -> records of a shard.
//!
//! The document is read in one pass without a tree in between: the visitors here append straight
//! to the columns. A value of a wrong type is noted and read as missing; fields that nobody needs
//! are skipped without looking at them.

mod config;
mod manifest;

use super::Oddity;
use super::builder::{Builder, Slot};
use super::lenient::{Expect, Found, Key, Lenient};
use super::shard::Table;
use crate::strings::{NONE, StringId};
use config::Config;
use manifest::Manifest;
use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use std::fmt;

/// Where in a manifest or config a value stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Name of the list, with its index, if the value is in one.
    pub list: Option<(&'static str, usize)>,
    /// Name of the field; empty for the list element itself.
    pub name: &'static str,
}

impl Place {
    const fn field(name: &'static str) -> Self {
        Self { list: None, name }
    }

    const fn item(list: &'static str, index: usize, name: &'static str) -> Self {
        Self { list: Some((list, index)), name }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list {
            Some((list, index)) if self.name.is_empty() => write!(f, "{list}[{index}]"),
            Some((list, index)) => write!(f, "{list}[{index}].{}", self.name),
            None => f.write_str(self.name),
        }
    }
}

impl Builder {
    /// Notes a value of a wrong type; `null` counts as missing, not as wrong.
    fn wrong(&mut self, place: Place, found: Found) {
        if found != Found::Null {
            self.note(Oddity::WrongType, format_args!("{place}: is {found}"));
        }
    }

    /// Notes a key that an object gives again.
    fn again(&mut self, seen: &mut u32, bit: u32, place: Place) -> bool {
        let again = *seen & (1 << bit) != 0;
        *seen |= 1 << bit;
        if again {
            self.note(Oddity::RepeatedKey, format_args!("{place}"));
        }
        again
    }
}

/// The whole document.
pub(super) struct Document<'b>(pub &'b mut Builder);

impl<'de> Expect<'de> for Document<'_> {
    type Out = ();

    fn wrong(self, found: Found) {
        self.0.note(Oddity::NoTopLevelObject, format_args!("the document is {found}"));
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        enum Part {
            Manifests,
            Configs,
            Tags,
            Other,
        }
        let b = self.0;
        let mut seen = 0;
        let (mut manifests, mut configs) = (false, false);
        let key = |k: &str| match k {
            "manifests" => Part::Manifests,
            "configs" => Part::Configs,
            "tags" => Part::Tags,
            _ => Part::Other,
        };
        while let Some(part) = map.next_key_seed(Key(key))? {
            b.tag = NONE;
            match part {
                Part::Manifests => {
                    if b.again(&mut seen, 0, Place::field("manifests")) {
                        b.forget_manifests();
                    }
                    manifests = map.next_value_seed(Lenient(ByTag { b, configs: false }))?;
                }
                Part::Configs => {
                    if b.again(&mut seen, 1, Place::field("configs")) {
                        b.forget_configs();
                    }
                    configs = map.next_value_seed(Lenient(ByTag { b, configs: true }))?;
                }
                Part::Tags => {
                    b.again(&mut seen, 2, Place::field("tags"));
                    map.next_value_seed(Lenient(TagList(b)))?;
                }
                Part::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        b.tag = NONE;
        for (name, there) in [("manifests", manifests), ("configs", configs)] {
            if !there {
                b.note(Oddity::NoTopLevelObject, format_args!("there is no `{name}` object"));
            }
        }
        Ok(())
    }
}

/// `tags`: kept only to compare them with the manifests.
struct TagList<'b>(&'b mut Builder);

impl<'de> Expect<'de> for TagList<'_> {
    type Out = ();

    fn wrong(self, found: Found) {
        self.0.wrong(Place::field("tags"), found);
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut tags = Vec::new();
        let mut i = 0;
        while let Some(id) = list.next_element_seed(Lenient(Text {
            b: &mut *self.0,
            table: Table::Tags,
            place: Place::item("tags", i, ""),
        }))? {
            tags.extend((id != NONE).then_some(id));
            i += 1;
        }
        self.0.listed_tags = Some(tags);
        Ok(())
    }
}

/// `manifests` or `configs`; true if it is an object at all.
struct ByTag<'b> {
    b: &'b mut Builder,
    configs: bool,
}

impl<'de> Expect<'de> for ByTag<'_> {
    type Out = bool;

    fn wrong(self, found: Found) -> bool {
        self.b.wrong(Place::field(if self.configs { "configs" } else { "manifests" }), found);
        false
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let b = self.b;
        while let Some(tag) = map.next_key_seed(Key(|k: &str| b.intern(Table::Tags, k)))? {
            b.tag = tag;
            if self.configs {
                let kept = map.next_value_seed(Lenient(Config(b)))?;
                b.place(Slot::Config, tag, kept);
            } else {
                let kept = map.next_value_seed(Lenient(Manifest(b)))?;
                b.place(Slot::Manifest, tag, kept);
            }
        }
        b.tag = NONE;
        Ok(true)
    }
}

/// Text that is interned; [`NONE`] if there is none.
struct Text<'b> {
    b: &'b mut Builder,
    table: Table,
    place: Place,
}

impl Expect<'_> for Text<'_> {
    type Out = StringId;

    fn wrong(self, found: Found) -> StringId {
        self.b.wrong(self.place, found);
        NONE
    }

    fn text(self, text: &str) -> StringId {
        self.b.intern_at(self.table, self.place.list.map_or(0, |(_, index)| index), text)
    }
}

/// The parts of a platform, in the order in which they are put together.
const PLATFORM: [&str; 4] = ["os", "architecture", "variant", "os.version"];

/// A part of a platform, copied into [`Builder::platform`].
struct PlatformPart<'b> {
    b: &'b mut Builder,
    part: usize,
}

impl Expect<'_> for PlatformPart<'_> {
    type Out = ();

    fn wrong(self, found: Found) {
        self.b.wrong(Place::field(PLATFORM[self.part]), found);
        self.b.platform[self.part].clear();
    }

    fn text(self, text: &str) {
        self.b.platform[self.part].clear();
        self.b.platform[self.part].push_str(text);
    }
}

struct PlatformObject<'b> {
    b: &'b mut Builder,
    place: Place,
}

impl<'de> Expect<'de> for PlatformObject<'_> {
    type Out = StringId;

    fn wrong(self, found: Found) -> StringId {
        self.b.wrong(self.place, found);
        NONE
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<StringId, A::Error> {
        let b = self.b;
        let mut seen = 0;
        let key = |k: &str| PLATFORM.iter().position(|p| *p == k);
        while let Some(part) = map.next_key_seed(Key(key))? {
            match part {
                Some(part) => {
                    b.again(&mut seen, part as u32, Place::field(PLATFORM[part]));
                    map.next_value_seed(Lenient(PlatformPart { b, part }))?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(b.take_platform())
    }
}

#[cfg(test)]
mod tests;
