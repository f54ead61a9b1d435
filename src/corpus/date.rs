//! Dates as configs and histories give them: RFC 3339, and a little more.

/// A date that could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// Year as written, in the date's own offset.
    pub year: u16,
    /// Seconds since 1970-01-01T00:00:00 UTC; fractions are cut off.
    pub seconds: i64,
    /// Offset from UTC in minutes; 0 for `Z` and where none is given.
    pub offset_minutes: i32,
}

impl Date {
    /// Reads `YYYY-MM-DD[Thh:mm:ss[.fraction][Z|+hh:mm|-hh:mm]]`; `None` if it is no such date.
    pub fn parse(text: &str) -> Option<Self> {
        let b = text.as_bytes();
        if b.get(4) != Some(&b'-') || b.get(7) != Some(&b'-') {
            return None;
        }
        let (year, month, day) = (digits(b.get(..4)?)?, digits(b.get(5..7)?)?, digits(b.get(8..10)?)?);
        if !(1..=12).contains(&month) || day < 1 || day > month_length(year, month) {
            return None;
        }
        let (time, offset_minutes) = clock(&b[10..])?;
        let seconds = days(year, month, day) * 86_400 + time - i64::from(offset_minutes) * 60;
        Some(Self { year: year as u16, seconds, offset_minutes })
    }
}

/// Seconds of the day and offset in minutes of what follows the date.
fn clock(b: &[u8]) -> Option<(i64, i32)> {
    if b.is_empty() {
        return Some((0, 0));
    }
    if !matches!(b[0], b'T' | b't' | b' ') || b.get(3) != Some(&b':') || b.get(6) != Some(&b':') {
        return None;
    }
    let (hour, minute, second) = (digits(b.get(1..3)?)?, digits(b.get(4..6)?)?, digits(b.get(7..9)?)?);
    // A leap second is written as 60.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = &b[9..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
        rest = if length > 0 { &fraction[length..] } else { return None };
    }
    let offset = match rest {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), hh @ .., b':', m1, m2] if hh.len() == 2 => {
            let (hours, minutes) = (digits(hh)?, digits(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let minutes = (hours * 60 + minutes) as i32;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    Some((hour * 3600 + minute * 60 + second, offset))
}

fn digits(b: &[u8]) -> Option<i64> {
    b.iter().try_fold(0, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years begin in March here, so that
/// the leap day comes last; 719,468 days lie between 0000-03-01 and 1970-01-01.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        let seconds = |text| Date::parse(text).map(|d| d.seconds);
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2024-02-29T23:59:59.123456789Z"), Some(1_709_251_199));
        assert_eq!(seconds("0001-01-01T00:00:00Z"), Some(-62_135_596_800));
        assert_eq!(seconds("2000-03-01"), Some(951_868_800));
        let offset = Date::parse("2020-01-01T01:30:00.5+01:30").unwrap();
        assert_eq!((offset.seconds, offset.offset_minutes), (1_577_836_800, 90));
        assert_eq!(Date::parse("2020-01-01T00:00:00-07:00").unwrap().offset_minutes, -420);
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "now",
            "2024",
            "2024-13-01",
            "2023-02-29",
            "2024-00-10",
            "2024-01-00",
            "2024-01-01T",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01T00:00:00+",
            "2024-01-01T00:00:00Zx",
            "２０２４-01-01",
            "2024-1-1T00:00:00Z",
        ] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = Date::parse("1999-12-31").unwrap().seconds;
        for year in 2000..=2101 {
            for month in 1..=12 {
                for day in 1..=month_length(year, month) {
                    let now = Date::parse(&format!("{year}-{month:02}-{day:02}")).unwrap().seconds;
                    assert_eq!(now, before + 86_400);
                    before = now;
                }
            }
        }
    }
}
