//! Options of commands that ask container registries, and the client made from them.

use super::Context;
use crate::harvest::{Credentials, Error, Limits, Patience, Registry, Settings};
use crate::rootfs::source::Registries;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How registries are asked.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Registries")]
pub struct RegistryArgs {
    /// Ask this registry without encryption; all others need TLS
    #[arg(long, value_name = "HOST[:PORT]")]
    plain_http: Vec<String>,

    /// Credentials, as docker or podman write them on log-in [default: the files these tools use]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,

    /// Trust these certificates (PEM) besides those of the system
    #[arg(long, value_name = "FILE")]
    ca: Vec<PathBuf>,

    /// Connections to one registry at a time, over all ranks
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections)]
    connections: NonZeroUsize,

    /// Requests a second to one registry, over all ranks
    #[arg(long, value_name = "N", default_value_t = Limits::default().requests_per_second, value_parser = parse_rate)]
    request_rate: f64,

    /// Attempts at one request, with pauses that double
    #[arg(long, value_name = "N", default_value_t = Patience::default().attempts, value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,

    /// The longest pause that a registry may ask for (Retry-After)
    #[arg(long, value_name = "SECONDS", default_value_t = Patience::default().longest_pause.as_secs())]
    max_wait: u64,

    /// How long a download may stand still before it is taken up again
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    stall_timeout: u64,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
    if rate > 0.0 { Ok(rate) } else { Err("must be above 0".into()) }
}

impl RegistryArgs {
    /// How many ranks may ask registries: the first ones, one for each connection at most.
    pub fn ranks(&self, context: &Context) -> usize {
        self.connections.get().min(context.world.size())
    }

    /// The registries as a source of images, for this rank's share of the limits; `None` where there are
    /// more ranks than connections and this one has none.
    ///
    /// # Errors
    /// [`Error::Credentials`], [`Error::Settings`].
    pub fn source(&self, context: &Context) -> Result<Option<Registries>, Error> {
        let limits = Limits { connections: self.connections, requests_per_second: self.request_rate };
        let Some(share) = limits.share(context.world.rank(), context.world.size()) else { return Ok(None) };
        let settings = Settings {
            plain_http: self.plain_http.clone(),
            certificates: self.ca.clone(),
            patience: Patience {
                attempts: self.attempts,
                longest_pause: Duration::from_secs(self.max_wait),
                ..Patience::default()
            },
            read_timeout: Duration::from_secs(self.stall_timeout),
            ..Settings::new(share)
        };
        let credentials = Credentials::load(self.authfile.as_deref(), |name| std::env::var(name).ok())?;
        let client = Registry::new(settings, credentials, Arc::clone(context.stop.flag()))?;
        let client = client.beating(context.world.heartbeat());
        Ok(Some(Registries::new(Arc::new(client))))
    }
}
