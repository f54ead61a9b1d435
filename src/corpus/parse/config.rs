//! One config: when and for what the image was built, its diff_ids and its history.

use super::super::builder::Builder;
use super::super::lenient::{Expect, Found, Key, Lenient};
use super::super::shard::Table;
use super::super::{Configs, Date, History, Oddity};
use super::{PLATFORM, Place, PlatformPart, Text};
use crate::strings::NONE;
use serde::de::{IgnoredAny, MapAccess, SeqAccess};

/// One config; true if a row was made of it.
pub(super) struct Config<'b>(pub &'b mut Builder);

impl<'de> Expect<'de> for Config<'_> {
    type Out = bool;

    fn wrong(self, found: Found) -> bool {
        self.0.note(Oddity::WrongType, format_args!("the config is {found}"));
        false
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        enum Field {
            Created,
            Platform(usize),
            Rootfs(&'static str),
            History,
            Other,
        }
        let b = self.0;
        let mut seen = 0;
        let (mut created, mut flags) = (NONE, 0);
        let key = |k: &str| match k {
            "created" => Field::Created,
            "rootfs" => Field::Rootfs("rootfs"),
            "rootfS" => Field::Rootfs("rootfS"),
            "history" => Field::History,
            k => PLATFORM.iter().position(|p| *p == k).map_or(Field::Other, Field::Platform),
        };
        while let Some(field) = map.next_key_seed(Key(key))? {
            match field {
                Field::Created => {
                    let place = Place::field("created");
                    b.again(&mut seen, 4, place);
                    created = map.next_value_seed(Lenient(Text { b, table: Table::Dates, place }))?;
                }
                Field::Platform(part) => {
                    b.again(&mut seen, part as u32, Place::field(PLATFORM[part]));
                    map.next_value_seed(Lenient(PlatformPart { b, part }))?;
                }
                Field::Rootfs(name) => {
                    if name == "rootfS" {
                        b.note(Oddity::RootfsMisspelt, format_args!("rootfS"));
                    }
                    if b.again(&mut seen, 5, Place::field(name)) {
                        b.forget_diff_ids();
                        flags &= !Configs::HAS_ROOTFS;
                    }
                    if map.next_value_seed(Lenient(Rootfs { b, name }))? {
                        flags |= Configs::HAS_ROOTFS;
                    }
                }
                Field::History => {
                    if b.again(&mut seen, 6, Place::field("history")) {
                        b.forget_history();
                        flags &= !Configs::HAS_HISTORY;
                    }
                    if map.next_value_seed(Lenient(Steps(b)))? {
                        flags |= Configs::HAS_HISTORY;
                    }
                }
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let platform = b.take_platform();
        b.push_config(created, platform, flags);
        Ok(true)
    }
}

/// `rootfs`; true if it holds `diff_ids`.
struct Rootfs<'b> {
    b: &'b mut Builder,
    name: &'static str,
}

impl<'de> Expect<'de> for Rootfs<'_> {
    type Out = bool;

    fn wrong(self, found: Found) -> bool {
        self.b.wrong(Place::field(self.name), found);
        false
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let b = self.b;
        let (mut seen, mut any) = (0, false);
        while let Some(is_diff_ids) = map.next_key_seed(Key(|k: &str| k == "diff_ids"))? {
            if is_diff_ids {
                if b.again(&mut seen, 0, Place::field("rootfs.diff_ids")) {
                    b.forget_diff_ids();
                }
                any = map.next_value_seed(Lenient(DiffIds(b)))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(any)
    }
}

struct DiffIds<'b>(&'b mut Builder);

impl<'de> Expect<'de> for DiffIds<'_> {
    type Out = bool;

    fn wrong(self, found: Found) -> bool {
        self.0.wrong(Place::field("rootfs.diff_ids"), found);
        false
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut index = 0;
        while let Some(id) = list.next_element_seed(Lenient(Text {
            b: &mut *self.0,
            table: Table::DiffIds,
            place: Place::item("rootfs.diff_ids", index, ""),
        }))? {
            // The place in the list counts, so an unreadable diff_id is kept as an empty one.
            let id = if id == NONE { self.0.intern(Table::DiffIds, "") } else { id };
            self.0.push_diff_id(id);
            index += 1;
        }
        Ok(true)
    }
}

/// `history`; true if it is a list.
struct Steps<'b>(&'b mut Builder);

impl<'de> Expect<'de> for Steps<'_> {
    type Out = bool;

    fn wrong(self, found: Found) -> bool {
        self.0.wrong(Place::field("history"), found);
        false
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut index = 0;
        while list.next_element_seed(Lenient(Step { b: &mut *self.0, index }))?.is_some() {
            index += 1;
        }
        Ok(true)
    }
}

/// One history entry.
struct Step<'b> {
    b: &'b mut Builder,
    index: usize,
}

impl<'de> Expect<'de> for Step<'_> {
    type Out = ();

    fn wrong(self, found: Found) {
        let place = Place::item("history", self.index, "");
        self.b.note(Oddity::WrongType, format_args!("{place}: is {found}"));
        // An entry that says nothing still stands for a layer.
        self.b.push_step(NONE, NONE, History::NO_TIME, false);
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        enum Field {
            Created,
            CreatedBy,
            EmptyLayer,
            Comment,
            Other,
        }
        let Self { b, index } = self;
        let at = |name| Place::item("history", index, name);
        let mut seen = 0;
        let (mut created_by, mut comment) = (NONE, NONE);
        let (mut created, mut empty_layer) = (History::NO_TIME, false);
        let key = |k: &str| match k {
            "created" => Field::Created,
            "created_by" => Field::CreatedBy,
            "empty_layer" => Field::EmptyLayer,
            "comment" => Field::Comment,
            _ => Field::Other,
        };
        while let Some(field) = map.next_key_seed(Key(key))? {
            match field {
                Field::Created => {
                    b.again(&mut seen, 0, at("created"));
                    created = map.next_value_seed(Lenient(Time { b, place: at("created") }))?;
                }
                Field::CreatedBy => {
                    b.again(&mut seen, 1, at("created_by"));
                    let text = Text { b, table: Table::Commands, place: at("created_by") };
                    created_by = map.next_value_seed(Lenient(text))?;
                }
                Field::EmptyLayer => {
                    b.again(&mut seen, 2, at("empty_layer"));
                    empty_layer = map.next_value_seed(Lenient(Flag { b, place: at("empty_layer") }))?;
                }
                Field::Comment => {
                    b.again(&mut seen, 3, at("comment"));
                    let text = Text { b, table: Table::Comments, place: at("comment") };
                    comment = map.next_value_seed(Lenient(text))?;
                }
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if created_by == NONE {
            b.note(Oddity::HistoryWithoutCommand, format_args!("{}", at("created_by")));
        }
        b.push_step(created_by, comment, created, empty_layer);
        Ok(())
    }
}

/// Time of a history entry in seconds since 1970, or [`History::NO_TIME`].
struct Time<'b> {
    b: &'b mut Builder,
    place: Place,
}

impl Expect<'_> for Time<'_> {
    type Out = i64;

    fn wrong(self, found: Found) -> i64 {
        self.b.wrong(self.place, found);
        History::NO_TIME
    }

    fn text(self, text: &str) -> i64 {
        Date::parse(text).map_or(History::NO_TIME, |date| date.seconds)
    }
}

struct Flag<'b> {
    b: &'b mut Builder,
    place: Place,
}

impl Expect<'_> for Flag<'_> {
    type Out = bool;

    fn wrong(self, found: Found) -> bool {
        self.b.wrong(self.place, found);
        false
    }

    fn flag(self, value: bool) -> bool {
        value
    }
}
