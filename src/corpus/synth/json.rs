//! Corpus files as JSON text: one line for each manifest and config, keys in a fixed order.

use super::Population;
use super::draw::{Draw, Stream};
use super::layer::{TOOLS, empty_command, write_sha256};
use std::io::Write;

/// Media types of one generation of builders.
struct Types {
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
}

const DOCKER: Types = Types {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
};

const OCI: Types = Types {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
};

/// What the images of a repository have in common.
struct Habits {
    types: Types,
    architecture: &'static str,
    salt: u64,
}

impl Population {
    /// Appends the corpus file of repository `r`.
    pub(super) fn write_repository(&self, r: usize, out: &mut Vec<u8>) {
        let mut draw = Draw::new(self.recipe.seed, Stream::Repository, r as u64);
        let habits = Habits {
            types: if draw.chance(0.05) { OCI } else { DOCKER },
            architecture: if draw.chance(0.02) { "arm64" } else { "amd64" },
            salt: draw.bits(),
        };
        let images = self.ranges[r].clone();
        out.extend_from_slice(b"{\"tags\":[");
        separated(images.clone(), out, b",", |i, out| write_text(self.tags.get(i as u32), out));
        out.extend_from_slice(b"],\n\"manifests\":{\n");
        separated(images.clone(), out, b",\n", |i, out| {
            write_text(self.tags.get(i as u32), out);
            out.push(b':');
            self.write_manifest(i, &habits, out);
        });
        out.extend_from_slice(b"},\n\"configs\":{\n");
        separated(images, out, b",\n", |i, out| {
            write_text(self.tags.get(i as u32), out);
            out.push(b':');
            self.write_config(r, i, &habits, out);
        });
        out.extend_from_slice(b"}}\n");
    }

    fn write_manifest(&self, image: usize, habits: &Habits, out: &mut Vec<u8>) {
        let types = &habits.types;
        let mut draw = Draw::new(self.recipe.seed, Stream::Image, self.original(image) as u64);
        put(out, format_args!("{{\"schemaVersion\":2,\"mediaType\":\"{}\",", types.manifest));
        let size = 1500 + draw.below(9000);
        put(
            out,
            format_args!("\"config\":{{\"mediaType\":\"{}\",\"size\":{size},\"digest\":\"", types.config),
        );
        write_sha256(&draw.bytes(), out);
        out.extend_from_slice(b"\"},\"layers\":[");
        separated(self.placement.layers_of(image), out, b",", |layer, out| {
            let layer = &self.layers[*layer as usize];
            put(
                out,
                format_args!("{{\"mediaType\":\"{}\",\"size\":{},\"digest\":\"", types.layer, layer.size),
            );
            layer.write_digest(out);
            out.extend_from_slice(b"\"}");
        });
        out.extend_from_slice(b"]}");
    }

    fn write_config(&self, r: usize, image: usize, habits: &Habits, out: &mut Vec<u8>) {
        let nanos = (self.original(image) as u64 * 7_919 + habits.salt) % 1_000_000_000;
        put(
            out,
            format_args!("{{\"architecture\":\"{}\",\"os\":\"linux\",\"created\":\"", habits.architecture),
        );
        match self.dated_1970[r] {
            true => out.extend_from_slice(b"1970-01-01T00:00:00Z"),
            false => {
                write_time(self.times[image], out);
                out.pop();
                put(out, format_args!(".{nanos:09}Z"));
            }
        }
        let tool = TOOLS[(habits.salt % TOOLS.len() as u64) as usize];
        put(
            out,
            format_args!(
                "\",\"config\":{{\"Cmd\":[\"{tool}\"],\"WorkingDir\":\"/opt/{tool}\"}},\"history\":["
            ),
        );
        self.write_history(r, image, habits, out);
        out.extend_from_slice(b"],\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[");
        separated(self.placement.layers_of(image), out, b",", |layer, out| {
            out.push(b'"');
            self.layers[*layer as usize].write_diff_id(out);
            out.push(b'"');
        });
        out.extend_from_slice(b"]}}");
    }

    /// One step for each layer, in order, and steps without a layer in between and at the end.
    fn write_history(&self, r: usize, image: usize, habits: &Habits, out: &mut Vec<u8>) {
        let mut time = String::new();
        let mut seconds = i64::MIN;
        let mut set_time = |now: i64| {
            let now = if self.dated_1970[r] { 0 } else { now };
            if now > seconds {
                seconds = now;
                let mut text = Vec::with_capacity(20);
                write_time(now, &mut text);
                time = String::from_utf8(text).unwrap_or_default();
            }
            time.clone()
        };
        let mut seen = [0; 2];
        for (k, number) in self.placement.layers_of(image).iter().enumerate() {
            let layer = &self.layers[*number as usize];
            if k > 0 {
                out.push(b',');
            }
            if let Some(kind) = layer.empty {
                let command = empty_command(kind, habits.salt, seen[kind]);
                seen[kind] += 1;
                write_step(&set_time(i64::MIN + 1), &command, kind == 0, false, out);
                continue;
            }
            let is_base = self.is_base[*number as usize];
            let now = set_time(self.first_seen[*number as usize]);
            write_step(&now, &layer.command(is_base), layer.by_buildkit() && !is_base, false, out);
            if let Some(command) = layer.step_after(is_base) {
                out.push(b',');
                write_step(&now, &command, layer.by_buildkit(), true, out);
            }
        }
        let now = set_time(self.times[image]);
        let tool = TOOLS[(habits.salt % TOOLS.len() as u64) as usize];
        if habits.salt >> 32 & 1 == 0 {
            out.push(b',');
            write_step(&now, &format!("ENTRYPOINT [\"/opt/{tool}/bin/{tool}\"]"), true, true, out);
        }
        out.push(b',');
        write_step(&now, &format!("CMD [\"{tool}\"]"), true, true, out);
    }
}

fn write_step(time: &str, command: &str, by_buildkit: bool, empty_layer: bool, out: &mut Vec<u8>) {
    put(out, format_args!("{{\"created\":\"{time}\",\"created_by\":"));
    write_text(command, out);
    if by_buildkit {
        out.extend_from_slice(b",\"comment\":\"buildkit.dockerfile.v0\"");
    }
    if empty_layer {
        out.extend_from_slice(b",\"empty_layer\":true");
    }
    out.push(b'}');
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

/// Writes items with a separator in between.
fn separated<T>(
    items: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    separator: &[u8],
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    for (k, item) in items.into_iter().enumerate() {
        if k > 0 {
            out.extend_from_slice(separator);
        }
        write(item, out);
    }
}

/// A JSON string; the texts here hold no control characters.
fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// `YYYY-MM-DDThh:mm:ssZ` of seconds since 1970, for years up to 9999.
fn write_time(seconds: i64, out: &mut Vec<u8>) {
    // Years begin in March, so that the leap day comes last; 719,468 days lie between 0000-03-01
    // and 1970-01-01, 146,097 days are 400 years.
    let days = seconds.div_euclid(86_400) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let clock = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    put(out, format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Date;

    #[test]
    fn written_times_are_read_again() {
        for seconds in [0, 951_782_399, 951_782_400, 1_709_251_199, 1_709_251_200, 4_102_444_799] {
            let mut text = Vec::new();
            write_time(seconds, &mut text);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(Date::parse(&text).map(|d| d.seconds), Some(seconds), "{text}");
        }
    }

    #[test]
    fn texts_are_json() {
        let mut out = Vec::new();
        write_text("CMD [\"a\\b\"] é", &mut out);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), "CMD [\"a\\b\"] é");
    }
}
