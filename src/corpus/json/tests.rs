//! The fast reader against `serde_json`: what it takes, it takes alike.

use super::{Reader, Unusual, read, scan};
use proptest::prelude::*;
use serde::de::{Deserialize, IgnoredAny};
use serde_json::Value;
use std::marker::PhantomData;

fn value(document: &str) -> Result<Value, Unusual> {
    read(document, PhantomData::<Value>)
}

/// True if the fast reader passes the document as one value that nobody needs.
fn is_skipped(document: &str) -> bool {
    read(document, PhantomData::<IgnoredAny>).is_ok()
}

/// Both readers on one document. The fast one may give up, but not where the document is plain.
fn compare(document: &str, plain: bool) -> Result<(), TestCaseError> {
    let theirs = serde_json::from_str::<Value>(document);
    match (value(document), &theirs) {
        (Ok(ours), Ok(theirs)) => prop_assert_eq!(&ours, theirs),
        (Ok(_), Err(e)) => prop_assert!(false, "serde_json refuses {document:?}: {e}"),
        (Err(Unusual), theirs) => prop_assert!(!plain || theirs.is_err(), "gave up: {document:?}"),
    }
    let theirs = serde_json::from_str::<IgnoredAny>(document);
    prop_assert!(!is_skipped(document) || theirs.is_ok(), "serde_json refuses to pass {document:?}");
    prop_assert!(!plain || is_skipped(document) == theirs.is_ok(), "does not pass {document:?}");
    Ok(())
}

/// Values as crawls have them.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..10_u64.pow(19)).prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        "[ -~\u{0}-\u{1f}\"\\\\é😀]{0,24}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("[a-z\"\\\\\n]{0,20}", inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// The text of a value as Python writes it: ASCII alone.
fn ascii(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_ascii() {
            escaped.push(c);
        } else {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| escaped += &format!("\\u{unit:04x}"));
        }
    }
    escaped
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn plain_documents_are_read_alike(value in values()) {
        let compact = serde_json::to_string(&value).unwrap();
        let indented = serde_json::to_string_pretty(&value).unwrap();
        for document in [ascii(&indented).as_str(), &compact, &indented] {
            compare(document, true)?;
        }
    }

    #[test]
    fn damaged_documents_are_never_taken_for_others(
        value in values(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), "[]\\[{}:,\"\\\\u0-9.eE+ \n\t\u{1}tfnD-]{0,3}"), 1..4),
    ) {
        let mut document: Vec<char> = serde_json::to_string_pretty(&value).unwrap().chars().collect();
        for (at, with) in damages {
            let at = at.index(document.len() + 1);
            let end = (at + with.len() % 3).min(document.len());
            document.splice(at..end, with.chars());
        }
        let document: String = document.into_iter().collect();
        compare(&document, false)?;
        // Cut off anywhere.
        let half = document.chars().take(document.chars().count() / 2).collect::<String>();
        compare(&half, false)?;
    }

    #[test]
    fn runs_end_where_their_definition_says(bytes in prop::collection::vec(any::<u8>(), 0..80), at in 0..70usize) {
        let mut bytes = bytes;
        let end = at.min(bytes.len());
        bytes[..end].fill(b' ');
        let spaces = bytes.iter().take_while(|b| **b == b' ').count();
        prop_assert_eq!(scan::spaces(&bytes), spaces);
        let plain = bytes.iter().take_while(|b| **b != b'"' && **b != b'\\' && **b >= 0x20).count();
        prop_assert_eq!(scan::plain_text(&bytes), plain);
    }
}

#[test]
fn each_byte_ends_a_run_or_does_not() {
    for b in 0..=255 {
        for at in 0..40 {
            let mut bytes = [b'x'; 40];
            bytes[at] = b;
            let ends = b == b'"' || b == b'\\' || b < 0x20;
            assert_eq!(scan::plain_text(&bytes), if ends { at } else { 40 }, "{b} at {at}");
        }
    }
}

#[test]
fn odd_documents() {
    let deep = |depth: usize| "[".repeat(depth) + "1" + &"]".repeat(depth);
    assert!(is_skipped(&deep(64)) && !is_skipped(&deep(65)));
    for (document, is_plain) in [
        ("", false),
        (" \t\r\n{} ", true),
        ("{} {}", false),
        ("[1,]", false),
        ("[,1]", false),
        ("{\"a\":1,}", false),
        ("{\"a\" 1}", false),
        ("{1:1}", false),
        ("01", false),
        ("9999999999999999999", true),
        ("18446744073709551615", false),
        ("-1", false),
        ("1.5", false),
        ("1e3", false),
        ("tru", false),
        ("nullx", false),
        (r#""\u00e9\ud83d\ude00\/\b\f""#, true),
        (r#""\ud83d""#, false),
        (r#""\ud83dx""#, false),
        (r#""\ude00\ud83d""#, false),
        (r#""\u00g0""#, false),
        (r#""\x""#, false),
        ("\"a\nb\"", false),
        ("\"a", false),
        ("\"\\", false),
        ("\"\\u12", false),
    ] {
        compare(document, false).unwrap();
        assert_eq!(value(document).is_ok(), is_plain, "{document:?}");
    }
}

#[test]
fn a_visitor_that_stops_early_is_no_success() {
    let mut reader = Reader { text: "[1, 2]", at: 0, scratch: String::new() };
    assert!(<(u64,)>::deserialize(&mut reader).is_err());
    let mut reader = Reader { text: "[1, 2]", at: 0, scratch: String::new() };
    assert_eq!(<(u64, u64)>::deserialize(&mut reader), Ok((1, 2)));
}
