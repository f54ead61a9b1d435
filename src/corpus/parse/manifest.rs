//! One manifest: an image with layers, or an index of platforms.

use super::super::builder::Builder;
use super::super::lenient::{Expect, Found, Key, Lenient};
use super::super::shard::Table;
use super::super::{Layers, Oddity};
use super::{Place, PlatformObject, Text};
use crate::strings::NONE;
use serde::de::{IgnoredAny, MapAccess, SeqAccess};

/// One manifest; true if a row was made of it.
pub(super) struct Manifest<'b>(pub &'b mut Builder);

impl<'de> Expect<'de> for Manifest<'_> {
    type Out = bool;

    fn wrong(self, found: Found) -> bool {
        self.0.note(Oddity::WrongType, format_args!("the manifest is {found}"));
        false
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        enum Field {
            MediaType,
            SchemaVersion,
            Layers,
            Manifests,
            Other,
        }
        let b = self.0;
        let mut seen = 0;
        let (mut media_type, mut schema_version, mut has_layers) = (NONE, 0, false);
        let key = |k: &str| match k {
            "mediaType" => Field::MediaType,
            "schemaVersion" => Field::SchemaVersion,
            "layers" => Field::Layers,
            "manifests" => Field::Manifests,
            _ => Field::Other,
        };
        while let Some(field) = map.next_key_seed(Key(key))? {
            match field {
                Field::MediaType => {
                    let place = Place::field("mediaType");
                    b.again(&mut seen, 0, place);
                    media_type = map.next_value_seed(Lenient(Text { b, table: Table::MediaTypes, place }))?;
                }
                Field::SchemaVersion => {
                    b.again(&mut seen, 1, Place::field("schemaVersion"));
                    schema_version = map.next_value_seed(Lenient(SmallNumber(b)))?;
                }
                Field::Layers => {
                    if b.again(&mut seen, 2, Place::field("layers")) {
                        b.forget_layers();
                    }
                    has_layers = map.next_value_seed(Lenient(LayerList(b)))?;
                }
                Field::Manifests => {
                    if b.again(&mut seen, 3, Place::field("manifests")) {
                        b.forget_entries();
                    }
                    map.next_value_seed(Lenient(EntryList(b)))?;
                }
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        b.push_manifest(media_type, schema_version, has_layers);
        Ok(true)
    }
}

/// `schemaVersion`.
struct SmallNumber<'b>(&'b mut Builder);

impl Expect<'_> for SmallNumber<'_> {
    type Out = u8;

    fn wrong(self, found: Found) -> u8 {
        self.0.wrong(Place::field("schemaVersion"), found);
        0
    }

    fn integer(self, value: u64) -> u8 {
        u8::try_from(value).unwrap_or(0)
    }
}

struct LayerList<'b>(&'b mut Builder);

impl<'de> Expect<'de> for LayerList<'_> {
    type Out = bool;

    fn wrong(self, found: Found) -> bool {
        self.0.wrong(Place::field("layers"), found);
        false
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut index = 0;
        while list.next_element_seed(Lenient(Layer { b: &mut *self.0, index }))?.is_some() {
            index += 1;
        }
        Ok(true)
    }
}

struct Layer<'b> {
    b: &'b mut Builder,
    index: usize,
}

impl<'de> Expect<'de> for Layer<'_> {
    type Out = ();

    fn wrong(self, found: Found) {
        let place = Place::item("layers", self.index, "");
        self.b.note(Oddity::WrongType, format_args!("{place}: is {found}"));
        self.b.note(Oddity::LayerWithoutDigest, format_args!("{place}"));
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        enum Field {
            Digest,
            Size,
            MediaType,
            Urls,
            Other,
        }
        let Self { b, index } = self;
        let at = |name| Place::item("layers", index, name);
        let mut seen = 0;
        let (mut digest, mut media_type, mut urls) = (NONE, NONE, false);
        let mut size = Err(None);
        let key = |k: &str| match k {
            "digest" => Field::Digest,
            "size" => Field::Size,
            "mediaType" => Field::MediaType,
            "urls" => Field::Urls,
            _ => Field::Other,
        };
        while let Some(field) = map.next_key_seed(Key(key))? {
            match field {
                Field::Digest => {
                    b.again(&mut seen, 0, at("digest"));
                    let text = Text { b, table: Table::Digests, place: at("digest") };
                    digest = map.next_value_seed(Lenient(text))?;
                }
                Field::Size => {
                    b.again(&mut seen, 1, at("size"));
                    size = map.next_value_seed(Lenient(Size { b, place: at("size") }))?;
                }
                Field::MediaType => {
                    b.again(&mut seen, 2, at("mediaType"));
                    let text = Text { b, table: Table::MediaTypes, place: at("mediaType") };
                    media_type = map.next_value_seed(Lenient(text))?;
                }
                Field::Urls => {
                    b.again(&mut seen, 3, at("urls"));
                    urls = map.next_value_seed(Lenient(Urls { b, place: at("urls") }))?;
                }
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if digest == NONE || b.text(Table::Digests, digest).is_empty() {
            b.note(Oddity::LayerWithoutDigest, format_args!("{}", at("digest")));
            return Ok(());
        }
        let mut flags = if urls { Layers::FOREIGN } else { 0 };
        let size = size.unwrap_or_else(|found: Option<String>| {
            flags |= Layers::SIZE_INVALID;
            match found {
                Some(value) => b.note(Oddity::SizeInvalid, format_args!("{}: {value}", at("size"))),
                None => b.note(Oddity::SizeInvalid, format_args!("{}: missing", at("size"))),
            }
            0
        });
        b.push_layer(digest, size, media_type, flags);
        Ok(())
    }
}

/// The largest size that is believed, in bytes (1 PiB): sums of any number of layers stay exact.
const LARGEST_SIZE: u64 = 1 << 50;

/// A size in bytes; an error carries the number that is none.
struct Size<'b> {
    b: &'b mut Builder,
    place: Place,
}

impl Expect<'_> for Size<'_> {
    type Out = Result<u64, Option<String>>;

    fn wrong(self, found: Found) -> Self::Out {
        self.b.wrong(self.place, found);
        Err(None)
    }

    fn integer(self, value: u64) -> Self::Out {
        if value <= LARGEST_SIZE { Ok(value) } else { Err(Some(value.to_string())) }
    }

    fn number(self, value: impl std::fmt::Display) -> Self::Out {
        Err(Some(value.to_string()))
    }
}

/// `urls`: true if there are any.
struct Urls<'b> {
    b: &'b mut Builder,
    place: Place,
}

impl<'de> Expect<'de> for Urls<'_> {
    type Out = bool;

    fn wrong(self, found: Found) -> bool {
        self.b.wrong(self.place, found);
        false
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut any = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            any = true;
        }
        Ok(any)
    }
}

struct EntryList<'b>(&'b mut Builder);

impl<'de> Expect<'de> for EntryList<'_> {
    type Out = ();

    fn wrong(self, found: Found) {
        self.0.wrong(Place::field("manifests"), found);
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while list.next_element_seed(Lenient(Entry { b: &mut *self.0, index }))?.is_some() {
            index += 1;
        }
        self.0.has_entries = true;
        Ok(())
    }
}

/// One platform's entry of an index.
struct Entry<'b> {
    b: &'b mut Builder,
    index: usize,
}

impl<'de> Expect<'de> for Entry<'_> {
    type Out = ();

    fn wrong(self, found: Found) {
        let place = Place::item("manifests", self.index, "");
        self.b.note(Oddity::WrongType, format_args!("{place}: is {found}"));
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        enum Field {
            Digest,
            Size,
            MediaType,
            Platform,
            Other,
        }
        let Self { b, index } = self;
        let at = |name| Place::item("manifests", index, name);
        let mut seen = 0;
        let (mut digest, mut media_type, mut platform) = (NONE, NONE, NONE);
        let mut size = Err(None);
        let key = |k: &str| match k {
            "digest" => Field::Digest,
            "size" => Field::Size,
            "mediaType" => Field::MediaType,
            "platform" => Field::Platform,
            _ => Field::Other,
        };
        while let Some(field) = map.next_key_seed(Key(key))? {
            match field {
                Field::Digest => {
                    b.again(&mut seen, 0, at("digest"));
                    let text = Text { b, table: Table::ManifestDigests, place: at("digest") };
                    digest = map.next_value_seed(Lenient(text))?;
                }
                Field::Size => {
                    b.again(&mut seen, 1, at("size"));
                    size = map.next_value_seed(Lenient(Size { b, place: at("size") }))?;
                }
                Field::MediaType => {
                    b.again(&mut seen, 2, at("mediaType"));
                    let text = Text { b, table: Table::MediaTypes, place: at("mediaType") };
                    media_type = map.next_value_seed(Lenient(text))?;
                }
                Field::Platform => {
                    b.again(&mut seen, 3, at("platform"));
                    platform = map.next_value_seed(Lenient(PlatformObject { b, place: at("platform") }))?;
                }
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if let Err(Some(value)) = &size {
            b.note(Oddity::SizeInvalid, format_args!("{}: {value}", at("size")));
        }
        if platform != NONE && b.text(Table::Platforms, platform).starts_with("unknown/unknown") {
            b.note(Oddity::UnknownPlatform, format_args!("{}", at("platform")));
        }
        if digest == NONE {
            // An entry without a digest points nowhere; the empty string keeps its place.
            digest = b.intern(Table::ManifestDigests, "");
        }
        b.push_entry(digest, media_type, size.unwrap_or(0), platform);
        Ok(())
    }
}
