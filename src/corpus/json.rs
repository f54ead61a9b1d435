//! A fast reader of the JSON that crawls consist of.
//!
//! It takes a subset of what `serde_json` takes, with the same outcome, and gives up with
//! [`Unusual`] at the first thing that is not plain: lone halves of surrogate pairs, fractions and
//! negative numbers where a value is wanted, values nested deeper than 64, and every mistake.
//! `serde_json` then reads the document from its beginning and has the last word, so that this
//! reader can be strict and short. Most bytes of a crawl are indentation and values that nobody
//! needs; both are passed 16 at a time.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::fmt;

/// The document is not plain; another reader has to look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unusual;

impl fmt::Display for Unusual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not plain JSON")
    }
}

impl std::error::Error for Unusual {}

impl de::Error for Unusual {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Reads a whole document.
///
/// # Errors
/// [`Unusual`]; what the seed did until then is to be forgotten.
pub(super) fn read<'de, T: DeserializeSeed<'de>>(document: &'de str, seed: T) -> Result<T::Value, Unusual> {
    let mut reader = Reader { text: document, at: 0, scratch: String::new() };
    let value = seed.deserialize(&mut reader)?;
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(Unusual),
    }
}

struct Reader<'de> {
    text: &'de str,
    at: usize,
    /// The string at hand, if it has escapes.
    scratch: String,
}

impl<'de> Reader<'de> {
    fn rest(&self) -> &'de [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// The next byte that is not white space, which stays.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.rest() {
                [b @ (b'\n' | b' ' | b'\t' | b'\r'), ..] => {
                    self.at += 1;
                    // Lines are indented with spaces.
                    if *b == b'\n' {
                        self.at += scan::spaces(self.rest());
                    }
                }
                [b, ..] => return Some(*b),
                [] => return None,
            }
        }
    }

    /// Passes the next byte that is not white space, which has to be this one.
    fn expect(&mut self, wanted: u8) -> Result<(), Unusual> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        Err(Unusual)
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Unusual> {
        if self.rest().starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(Unusual)
    }

    /// A whole number below 10^19 that is written plainly.
    fn integer(&mut self) -> Result<u64, Unusual> {
        let rest = self.rest();
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let plain = (1..=19).contains(&digits)
            && (digits == 1 || rest[0] != b'0')
            && !matches!(rest.get(digits), Some(b'.' | b'e' | b'E'));
        if !plain {
            return Err(Unusual);
        }
        self.at += digits;
        Ok(rest[..digits].iter().fold(0, |n, b| n * 10 + u64::from(b - b'0')))
    }

    /// The string whose opening quote comes next: a piece of the document, or `None` if it was
    /// put together in `scratch`.
    fn string(&mut self) -> Result<Option<&'de str>, Unusual> {
        self.expect(b'"')?;
        let start = self.at;
        self.at += scan::plain_text(self.rest());
        if let [b'"', ..] = self.rest() {
            let text = &self.text[start..self.at];
            self.at += 1;
            return Ok(Some(text));
        }
        self.scratch.clear();
        let mut piece = start;
        loop {
            self.scratch.push_str(&self.text[piece..self.at]);
            match self.rest() {
                [b'"', ..] => {
                    self.at += 1;
                    return Ok(None);
                }
                [b'\\', ..] => {
                    let c = self.escape()?;
                    self.scratch.push(c);
                }
                // A control character, or the end of the document.
                _ => return Err(Unusual),
            }
            piece = self.at;
            self.at += scan::plain_text(self.rest());
        }
    }

    /// The character that the escape sequence at hand stands for.
    fn escape(&mut self) -> Result<char, Unusual> {
        let (c, length) = match self.rest().get(1).ok_or(Unusual)? {
            b'"' => ('"', 2),
            b'\\' => ('\\', 2),
            b'/' => ('/', 2),
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'u' => match unit(self.rest())? {
                high @ 0xd800..=0xdbff => {
                    let low = unit(self.rest().get(6..).ok_or(Unusual)?)?;
                    let Some(Ok(c)) = char::decode_utf16([high, low]).next() else { return Err(Unusual) };
                    (c, 12)
                }
                one => (char::from_u32(u32::from(one)).ok_or(Unusual)?, 6),
            },
            _ => return Err(Unusual),
        };
        self.at += length;
        Ok(c)
    }

    /// Passes the string whose opening quote comes next.
    fn skip_string(&mut self) -> Result<(), Unusual> {
        self.expect(b'"')?;
        loop {
            self.at += scan::plain_text(self.rest());
            match self.rest() {
                [b'"', ..] => {
                    self.at += 1;
                    return Ok(());
                }
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => self.at += 2,
                [b'\\', b'u', ..] => {
                    unit(self.rest())?;
                    self.at += 6;
                }
                _ => return Err(Unusual),
            }
        }
    }

    fn skip_number(&mut self) -> Result<(), Unusual> {
        let mut rest = self.rest();
        let before = rest.len();
        let digits = |rest: &mut &[u8]| {
            let n = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            *rest = &rest[n..];
            n
        };
        rest = rest.strip_prefix(b"-").unwrap_or(rest);
        let leading_zero = rest.first() == Some(&b'0');
        let whole = digits(&mut rest);
        if whole == 0 || (leading_zero && whole > 1) {
            return Err(Unusual);
        }
        if let Some(fraction) = rest.strip_prefix(b".") {
            rest = fraction;
            if digits(&mut rest) == 0 {
                return Err(Unusual);
            }
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            rest = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
            if digits(&mut rest) == 0 {
                return Err(Unusual);
            }
        }
        self.at += before - rest.len();
        Ok(())
    }

    /// Passes one value of any kind.
    fn skip(&mut self) -> Result<(), Unusual> {
        // One bit per open list (0) or object (1), the innermost lowest.
        let (mut depth, mut objects) = (0, 0u64);
        loop {
            match self.peek().ok_or(Unusual)? {
                open @ (b'{' | b'[') => {
                    self.at += 1;
                    let is_object = open == b'{';
                    let close = if is_object { b'}' } else { b']' };
                    if self.peek() == Some(close) {
                        self.at += 1;
                    } else if depth == 64 {
                        return Err(Unusual);
                    } else {
                        depth += 1;
                        objects = objects << 1 | u64::from(is_object);
                        if is_object {
                            self.skip_string()?;
                            self.expect(b':')?;
                        }
                        continue;
                    }
                }
                b'"' => self.skip_string()?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => self.skip_number()?,
            }
            // After a value: the next one, or the end of what it stands in.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = objects & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if is_object {
                            self.skip_string()?;
                            self.expect(b':')?;
                        }
                        break;
                    }
                    Some(b'}') if is_object => (),
                    Some(b']') if !is_object => (),
                    _ => return Err(Unusual),
                }
                self.at += 1;
                depth -= 1;
                objects >>= 1;
            }
        }
    }
}

/// The number of an escape sequence `\uXXXX`.
fn unit(escape: &[u8]) -> Result<u16, Unusual> {
    let [b'\\', b'u', hex @ ..] = escape else { return Err(Unusual) };
    let digits = hex.first_chunk::<4>().ok_or(Unusual)?;
    digits.iter().try_fold(0, |n, b| {
        let digit = char::from(*b).to_digit(16).ok_or(Unusual)?;
        Ok(n << 4 | digit as u16)
    })
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Unusual;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        match self.peek().ok_or(Unusual)? {
            b'"' => match self.string()? {
                Some(text) => visitor.visit_borrowed_str(text),
                None => visitor.visit_str(&self.scratch),
            },
            b'{' => {
                self.at += 1;
                let value = visitor.visit_map(Items { reader: &mut *self, first: true })?;
                self.expect(b'}')?;
                Ok(value)
            }
            b'[' => {
                self.at += 1;
                let value = visitor.visit_seq(Items { reader: &mut *self, first: true })?;
                self.expect(b']')?;
                Ok(value)
            }
            b't' => {
                self.literal(b"true")?;
                visitor.visit_bool(true)
            }
            b'f' => {
                self.literal(b"false")?;
                visitor.visit_bool(false)
            }
            b'n' => {
                self.literal(b"null")?;
                visitor.visit_unit()
            }
            _ => visitor.visit_u64(self.integer()?),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        self.skip()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
    }
}

/// The members of an object or list. Its end stays for the caller, as a visitor may stop early.
struct Items<'r, 'de> {
    reader: &'r mut Reader<'de>,
    first: bool,
}

impl Items<'_, '_> {
    /// True if another member comes.
    fn another(&mut self, close: u8) -> Result<bool, Unusual> {
        if self.reader.peek() == Some(close) {
            return Ok(false);
        }
        if !std::mem::take(&mut self.first) {
            self.reader.expect(b',')?;
        }
        Ok(true)
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Unusual;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unusual> {
        if !self.another(b'}')? {
            return Ok(None);
        }
        if self.reader.peek() != Some(b'"') {
            return Err(Unusual);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unusual> {
        self.reader.expect(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Unusual;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unusual> {
        if !self.another(b']')? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

/// Finds the end of runs of bytes.
mod scan {
    /// How many spaces the bytes begin with.
    pub fn spaces(bytes: &[u8]) -> usize {
        run(bytes, |b| b == b' ', block::not_spaces)
    }

    /// How many bytes come before the first quote, backslash or control character.
    pub fn plain_text(bytes: &[u8]) -> usize {
        run(bytes, |b| !matches!(b, b'"' | b'\\' | 0..0x20), block::not_plain)
    }

    /// Length of the run of bytes at the beginning that belong to it; `others` has a bit set for
    /// each byte of a block that does not.
    fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool, others: impl Fn(&[u8; 16]) -> u32) -> usize {
        let (blocks, rest) = bytes.as_chunks::<16>();
        for (i, block) in blocks.iter().enumerate() {
            let others = others(block);
            if others != 0 {
                return i * 16 + others.trailing_zeros() as usize;
            }
        }
        bytes.len() - rest.len() + rest.iter().take_while(|b| belongs(**b)).count()
    }

    /// One bit per byte of a block.
    #[cfg(target_arch = "x86_64")]
    mod block {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
        };

        pub fn not_spaces(block: &[u8; 16]) -> u32 {
            // SAFETY: SSE2 belongs to every x86-64.
            unsafe { not_spaces_sse2(bytemuck::cast(*block)) }
        }

        pub fn not_plain(block: &[u8; 16]) -> u32 {
            // SAFETY: as above.
            unsafe { not_plain_sse2(bytemuck::cast(*block)) }
        }

        #[target_feature(enable = "sse2")]
        fn not_spaces_sse2(bytes: __m128i) -> u32 {
            mask(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(b' ' as i8))) ^ 0xffff
        }

        #[target_feature(enable = "sse2")]
        fn not_plain_sse2(bytes: __m128i) -> u32 {
            let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
            let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
            let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
            mask(_mm_or_si128(_mm_or_si128(quote, backslash), control))
        }

        #[target_feature(enable = "sse2")]
        fn mask(lanes: __m128i) -> u32 {
            _mm_movemask_epi8(lanes) as u32
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    mod block {
        pub fn not_spaces(block: &[u8; 16]) -> u32 {
            mask(block, |b| b != b' ')
        }

        pub fn not_plain(block: &[u8; 16]) -> u32 {
            mask(block, |b| matches!(b, b'"' | b'\\' | 0..0x20))
        }

        fn mask(block: &[u8; 16], is: impl Fn(u8) -> bool) -> u32 {
            block.iter().rev().fold(0, |mask, b| mask << 1 | u32::from(is(*b)))
        }
    }
}

#[cfg(test)]
mod tests;
