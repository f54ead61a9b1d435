//! How long a failing request is tried again: pauses that double, and the server's own word.

use super::Error;
use std::time::{Duration, SystemTime};

/// How failing requests are tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// Attempts in all, without progress between them.
    pub attempts: u32,
    /// The first pause; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause, also if the server asks for more: then the request fails at once.
    pub longest_pause: Duration,
}

impl Default for Patience {
    /// 6 attempts with pauses of 0.5, 1, 2, 4 and 8 s; up to 5 minutes if the server asks for it.
    fn default() -> Self {
        Self { attempts: 6, first_pause: Duration::from_millis(500), longest_pause: Duration::from_secs(300) }
    }
}

/// The attempts at one request.
pub(super) struct Attempts {
    patience: Patience,
    failed: u32,
}

impl Attempts {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, failed: 0 }
    }

    /// There was progress: counting begins again.
    pub(super) fn begin_again(&mut self) {
        self.failed = 0;
    }

    /// How long to wait before the next attempt.
    ///
    /// # Errors
    /// [`Error::GivenUp`] if there is none, [`Error::TooLong`] if the server wants too long a pause.
    pub(super) fn pause(
        &mut self,
        what: &str,
        reason: String,
        server: Option<Duration>,
    ) -> Result<Duration, Error> {
        self.failed += 1;
        let what = what.to_owned();
        if self.failed >= self.patience.attempts {
            return Err(Error::GivenUp { what, reason, attempts: self.failed });
        }
        let doubled = self.patience.first_pause.saturating_mul(1 << (self.failed - 1).min(20));
        match server {
            Some(wait) if wait > self.patience.longest_pause => Err(Error::TooLong { what, reason, wait }),
            Some(wait) => Ok(wait.max(self.patience.first_pause)),
            None => Ok(doubled.min(self.patience.longest_pause)),
        }
    }
}

/// The pause that a `Retry-After` header asks for (RFC 9110, section 10.2.3): seconds or a date.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or(Duration::ZERO))
}

/// True for answers that a later attempt may better: overload, a gateway in trouble, a time-out.
pub(super) fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_the_attempts_are_used_up() {
        let patience = Patience { attempts: 4, ..Patience::default() };
        let mut attempts = Attempts::new(patience);
        let mut pause = || attempts.pause("a blob", "503".into(), None).map(|p| p.as_millis());
        assert_eq!([pause().unwrap(), pause().unwrap(), pause().unwrap()], [500, 1000, 2000]);
        assert_eq!(pause().unwrap_err().to_string(), "a blob: 503 (given up after 4 attempts)");
    }

    #[test]
    fn the_servers_word_counts_within_reason() {
        let mut attempts = Attempts::new(Patience::default());
        let mut pause = |s| attempts.pause("a blob", "429".into(), Some(Duration::from_secs(s)));
        assert_eq!(pause(7).unwrap(), Duration::from_secs(7));
        assert_eq!(pause(0).unwrap(), Duration::from_millis(500));
        assert!(matches!(pause(4000), Err(Error::TooLong { wait, .. }) if wait.as_secs() == 4000));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(retry_after(" 12 ", now), Some(Duration::from_secs(12)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-3", now), None);
    }
}
