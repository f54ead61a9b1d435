//! Text -> tokens, as the study's scripts do it.
//!
//! Both scripts replace punctuation by spaces, lower the case, split at white space and drop short
//! tokens and hashes (`parse_configs` in `scripts/plot-layers.py` and `scripts/parse_dockerfile.py`
//! of the study). Case, white space and lengths are those of Python's `str`: full Unicode lower
//! case (a capital sigma that ends a word becomes ς, İ becomes two code points), `str.split` (which
//! also splits at U+001C to U+001F), lengths in code points. The version of Unicode is that of
//! Rust's library; Python 3.11 and 3.12 know none of the capital letters added since version 15.

/// What becomes of an ASCII byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Keep,
    Upper,
    Separate,
    Delete,
}

/// A set of rules.
#[derive(Debug, Clone)]
pub struct Rules {
    class: [Class; 128],
    /// For ASCII: the byte in lower case, a space for what separates.
    lower: [u8; 128],
    deletes: bool,
    /// Drop tokens of 40 and 64 code points: commits and digests.
    drop_hashes: bool,
}

impl Rules {
    /// Those of the study's history corpora (`parse_configs`).
    pub fn histories() -> Self {
        Self::new("'\";:=_-\n\t#.*&<>{}|()[]$/", "", true)
    }

    /// Those of the study's Dockerfile corpus (`parse_dockerfile.py`): `@` separates, too.
    pub fn dockerfiles() -> Self {
        Self::new("'\";:=_-\n\t#.*&@<>{}|()[]$/", "", true)
    }

    /// Those of the study's first corpus, `dockerfile-corpus.txt`, on which its shares of apt
    /// were counted: less punctuation, brackets deleted, hashes kept.
    pub fn first_version() -> Self {
        Self::new("'\";:=\n", "{}|)(][$", false)
    }

    fn new(separators: &str, deleted: &str, drop_hashes: bool) -> Self {
        let class = std::array::from_fn(|byte| {
            let c = byte as u8 as char;
            if separators.contains(c) || is_python_space(c) {
                Class::Separate
            } else if deleted.contains(c) {
                Class::Delete
            } else if c.is_ascii_uppercase() {
                Class::Upper
            } else {
                Class::Keep
            }
        });
        let lower = std::array::from_fn(|byte| match class[byte] {
            Class::Separate => b' ',
            _ => (byte as u8).to_ascii_lowercase(),
        });
        Self { class, lower, deletes: !deleted.is_empty(), drop_hashes }
    }

    /// Makes `out` the ASCII text in lower case, with spaces for what separates and without what is
    /// deleted.
    pub(super) fn normalised(&self, text: &str, out: &mut String) {
        let mut bytes = std::mem::take(out).into_bytes();
        bytes.clear();
        let lower = |b: &u8| self.lower[usize::from(*b & 127)];
        match self.deletes {
            false => bytes.extend(text.as_bytes().iter().map(lower)),
            true => {
                let kept = |b: &&u8| self.class[usize::from(**b & 127)] != Class::Delete;
                bytes.extend(text.as_bytes().iter().filter(kept).map(lower));
            }
        }
        *out = String::from_utf8(bytes).unwrap_or_default();
    }

    fn each_ascii(&self, text: &str, scratch: &mut String, mut take: impl FnMut(&str)) {
        self.normalised(text, scratch);
        let mut start = 0;
        let mut give = |start: usize, end: usize| {
            let length = end - start;
            if length > 1 && !(self.drop_hashes && matches!(length, 40 | 64)) {
                take(&scratch[start..end]);
            }
        };
        for (at, byte) in scratch.bytes().enumerate() {
            if byte == b' ' {
                give(start, at);
                start = at + 1;
            }
        }
        give(start, scratch.len());
    }

    /// Calls `take` with each token of `text`. `scratch` is working space.
    ///
    /// Case is lowered token by token. That is the same as lowering the whole text: only the
    /// capital sigma looks at its neighbours, and it does not look across white space.
    pub fn each(&self, text: &str, scratch: &mut String, mut take: impl FnMut(&str)) {
        if text.is_ascii() {
            return self.each_ascii(text, scratch, take);
        }
        scratch.clear();
        let mut is_ascii = true;
        let mut rest = text;
        while let Some(&byte) = rest.as_bytes().first() {
            let mut length = 1;
            let separates = match self.class.get(usize::from(byte)) {
                Some(Class::Keep) => {
                    // Runs of plain bytes are copied as one.
                    length = self.plain(rest.as_bytes());
                    scratch.push_str(&rest[..length]);
                    false
                }
                Some(Class::Upper) => {
                    scratch.push(char::from(byte.to_ascii_lowercase()));
                    false
                }
                Some(Class::Separate) => true,
                Some(Class::Delete) => false,
                None => {
                    let c = rest.chars().next().unwrap_or_default();
                    length = c.len_utf8();
                    if !is_python_space(c) {
                        scratch.push(c);
                        is_ascii = false;
                    }
                    is_python_space(c)
                }
            };
            rest = &rest[length..];
            if separates && !scratch.is_empty() {
                self.end(scratch, is_ascii, &mut take);
                scratch.clear();
                is_ascii = true;
            }
        }
        if !scratch.is_empty() {
            self.end(scratch, is_ascii, &mut take);
        }
    }

    /// Length of the run of bytes that are kept as they are.
    fn plain(&self, bytes: &[u8]) -> usize {
        let kept = |b: &u8| self.class.get(usize::from(*b)) == Some(&Class::Keep);
        bytes.iter().position(|b| !kept(b)).unwrap_or(bytes.len())
    }

    fn end(&self, token: &str, is_ascii: bool, take: &mut impl FnMut(&str)) {
        let lowered;
        let (token, length) = if is_ascii {
            (token, token.len())
        } else {
            lowered = token.to_lowercase();
            (lowered.as_str(), lowered.chars().count())
        };
        if length > 1 && !(self.drop_hashes && matches!(length, 40 | 64)) {
            take(token);
        }
    }
}

/// What Python's `str.isspace` says, and so where `str.split` and `str.strip` cut.
pub(super) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(rules: &Rules, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        rules.each(text, &mut String::new(), |t| out.push(t.to_owned()));
        out
    }

    /// The definition, step by step on the whole text.
    fn by_definition(text: &str, separators: &str, deleted: &str, drop_hashes: bool) -> Vec<String> {
        let replaced: String = text
            .chars()
            .filter(|c| !deleted.contains(*c))
            .map(|c| if separators.contains(c) { ' ' } else { c })
            .collect();
        let lowered = replaced.to_lowercase();
        lowered
            .split(is_python_space)
            .filter(|t| match t.chars().count() {
                0 | 1 => false,
                40 | 64 => !drop_hashes,
                _ => true,
            })
            .map(str::to_owned)
            .collect()
    }

    proptest! {
        #[test]
        fn tokens_are_those_of_the_definition(text in "([a-cA-C0-9'\";:=_#.*&@<>{}|()\\[\\]$/ \t\r\n\u{1c}\u{1f}\u{85}\u{a0}\u{2028}\u{3000}ΑΣσİßé\u{ad}\u{feff}-]|[a-f0-9]{39,41}|[a-f0-9]{63,65}){0,40}") {
            let all = "'\";:=_-\n\t#.*&<>{}|()[]$/";
            prop_assert_eq!(tokens(&Rules::histories(), &text), by_definition(&text, all, "", true));
            prop_assert_eq!(
                tokens(&Rules::dockerfiles(), &text),
                by_definition(&text, &format!("{all}@"), "", true)
            );
            prop_assert_eq!(
                tokens(&Rules::first_version(), &text),
                by_definition(&text, "'\";:=\n", "{}|)(][$", false)
            );
        }
    }

    #[test]
    fn unicode_is_read_as_python_reads_it() {
        let of = |text| tokens(&Rules::histories(), text);
        assert_eq!(of("ΟΔΟΣ ΟΔΟΣ.x Σ ΣΣ"), ["οδος", "οδος", "σς"]);
        assert_eq!(of("İ x\u{1d}yz a\u{a0}bc\u{200b}d"), ["i\u{307}", "yz", "bc\u{200b}d"]);
        assert_eq!(of(&format!("{} {}", "é".repeat(40), "é".repeat(39))), ["é".repeat(39)]);
    }

    #[test]
    fn versions_differ_in_punctuation() {
        let text = "RUN apt-get install $(x) a/b [q]";
        assert_eq!(tokens(&Rules::histories(), text), ["run", "apt", "get", "install"]);
        assert_eq!(tokens(&Rules::first_version(), text), ["run", "apt-get", "install", "a/b"]);
        assert_eq!(tokens(&Rules::dockerfiles(), "a@bc"), ["bc"]);
    }
}
