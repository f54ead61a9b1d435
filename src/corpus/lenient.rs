//! Tolerant reading of JSON: a value of an unexpected type is reported, never an error.

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The JSON type that stands where another one was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Null,
    Bool,
    Number,
    Text,
    List,
    Object,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "a list",
            Self::Object => "an object",
        })
    }
}

/// A reader of one JSON value: it overrides the methods of the types that it takes, all others
/// end in [`Expect::wrong`].
pub(super) trait Expect<'de>: Sized {
    /// What is made of the value.
    type Out;

    /// A value of another type came.
    fn wrong(self, found: Found) -> Self::Out;

    fn text(self, _text: &str) -> Self::Out {
        self.wrong(Found::Text)
    }

    /// An integer of 0..2^64.
    fn integer(self, _value: u64) -> Self::Out {
        self.wrong(Found::Number)
    }

    /// A negative or fractional number, or one beyond 64 bits.
    fn number(self, _value: impl fmt::Display) -> Self::Out {
        self.wrong(Found::Number)
    }

    fn flag(self, _value: bool) -> Self::Out {
        self.wrong(Found::Bool)
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Out, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.wrong(Found::List))
    }

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Out, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self.wrong(Found::Object))
    }
}

/// Makes a serde seed of an [`Expect`].
pub(super) struct Lenient<T>(pub T);

impl<'de, T: Expect<'de>> DeserializeSeed<'de> for Lenient<T> {
    type Value = T::Out;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Out, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Expect<'de>> Visitor<'de> for Lenient<T> {
    type Value = T::Out;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T::Out, E> {
        Ok(self.0.text(text))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T::Out, E> {
        Ok(self.0.integer(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T::Out, E> {
        Ok(match u64::try_from(value) {
            Ok(value) => self.0.integer(value),
            Err(_) => self.0.number(value),
        })
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T::Out, E> {
        Ok(self.0.number(value))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T::Out, E> {
        Ok(self.0.flag(value))
    }

    fn visit_unit<E: Error>(self) -> Result<T::Out, E> {
        Ok(self.0.wrong(Found::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T::Out, A::Error> {
        self.0.list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T::Out, A::Error> {
        self.0.object(object)
    }
}

/// Reads an object key through a function.
pub(super) struct Key<F>(pub F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Key<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Key<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}
