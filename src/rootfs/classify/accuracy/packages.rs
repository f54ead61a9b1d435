//! File lists of packages, to be added to made images.

use super::draw::Draw;
use crate::rootfs::Universe;
use crate::rootfs::paths::normal;
use rustc_hash::FxHashMap;
use std::hash::Hasher;
use std::io::BufRead;
use std::path::Path;

/// The paths of a package that are in the universe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// True for packages that images often add; they are drawn as often as all others together.
    pub popular: bool,
    /// Ids where `/bin`, `/lib` and `/sbin` are directories of their own.
    pub split: Vec<u32>,
    /// Ids where they lead into `/usr`.
    pub merged: Vec<u32>,
    /// Ids of what dpkg itself keeps of an installed package.
    pub info: Vec<u32>,
}

/// A set of packages and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packages {
    /// The packages, by name.
    pub list: Vec<Package>,
    /// `the Contents index of a distribution (1,695 packages)` or `made (300 packages)`.
    pub source: String,
}

/// Packages that Dockerfiles commonly install, and what these bring along.
const POPULAR: &str = "tzdata perl perl-modules-5.36 libperl5.36 perl-base python3 python3.11 python3-minimal \
    python3.11-minimal libpython3.11-stdlib libpython3.11-minimal python3-pip python3-setuptools python3-wheel \
    python3-dev build-essential gcc gcc-12 g++-12 cpp-12 binutils make dpkg-dev libc6-dev linux-libc-dev \
    ca-certificates openssl libssl3 curl libcurl4 wget git git-man gnupg gpg gpg-agent dirmngr gnupg-l10n systemd \
    libsystemd-shared systemd-sysv dbus libpam-systemd man-db groff-base locales locales-all xz-utils bzip2 unzip \
    zip less vim vim-common vim-runtime nano procps psmisc lsb-release iproute2 iputils-ping net-tools dnsutils \
    netcat-openbsd openssh-client openssh-server rsync sudo cron rsyslog logrotate supervisor nginx nginx-common \
    apache2 apache2-bin nodejs npm default-jre-headless openjdk-17-jre-headless ruby ruby3.1 libruby3.1 golang-go \
    cmake ninja-build gdb strace file libmagic1 libmagic-mgc media-types shared-mime-info libglib2.0-0 \
    libglib2.0-data libx11-6 libx11-data libxml2 fontconfig fontconfig-config fonts-dejavu-core imagemagick ffmpeg \
    sqlite3 libsqlite3-0 postgresql-client-15 redis-server mariadb-client rpm rpm-common librpm9 dnf busybox \
    busybox-static apt-utils software-properties-common debian-archive-keyring base-files zlib1g-dev \
    libncurses-dev ncurses-term ncurses-base ncurses-bin libreadline8 readline-common kmod udev e2fsprogs \
    libkrb5-3 cracklib-runtime bash-completion fakeroot tini gosu jq tcl tk r-base-core gfortran-12 libopenblas0 \
    openmpi-bin debootstrap mmdebstrap libc-bin libc6 coreutils bash util-linux apt dpkg";

/// One in so many of the other packages is kept.
const ONE_IN: u64 = 20;

/// Hash of a package's name: which packages are kept, and on which side of the split they are.
pub fn hash(name: &str) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(name.as_bytes());
    // Its low bits depend on few of the name's; mix them.
    hasher.finish().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

impl Packages {
    /// Reads Contents indexes as Debian writes them (`path   section/package,section/package` a line,
    /// uncompressed) and keeps the popular packages and one in twenty of the others.
    ///
    /// # Errors
    /// If a file cannot be read, or if none of them holds a kept package.
    pub fn read(files: &[impl AsRef<Path>], universe: &Universe) -> std::io::Result<Self> {
        let popular: std::collections::HashSet<_> = POPULAR.split_whitespace().collect();
        let mut found: FxHashMap<String, Package> = FxHashMap::default();
        for file in files {
            let mut reader = std::io::BufReader::with_capacity(1 << 20, std::fs::File::open(file)?);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line)? > 0 {
                add_line(line.trim_ascii_end(), &popular, universe, &mut found);
                line.clear();
            }
        }
        let mut list: Vec<_> = found.into_values().collect();
        if list.is_empty() {
            return Err(std::io::Error::other("no line of a Contents index (path, section/package)"));
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        for package in &mut list {
            for ids in [&mut package.split, &mut package.merged] {
                ids.sort_unstable();
                ids.dedup();
            }
            package.info = info(&package.name, universe);
        }
        let source = format!("Contents index of a distribution ({} packages)", list.len());
        Ok(Self { list, source })
    }

    /// Packages made from the universe itself, where no index is at hand: each some neighbouring paths of
    /// one or more directories, as the bases have them.
    pub fn make(universe: &Universe, seed: u64) -> Self {
        let list = (0..600).map(|i| {
            let mut draw = Draw::new(seed, 1 << 40 | i);
            let mut ids = Vec::new();
            for _ in 0..draw.count(4) {
                let start = draw.below(universe.len());
                let end = (start + draw.count(300)).min(universe.len());
                ids.extend(start as u32..end as u32);
            }
            ids.sort_unstable();
            ids.dedup();
            let name = format!("made-{i}");
            Package { name, popular: i % 10 == 0, split: ids.clone(), merged: ids, info: Vec::new() }
        });
        Self { list: list.collect(), source: "made from the bases' own paths (600 packages)".into() }
    }
}

fn add_line(
    line: &[u8],
    popular: &std::collections::HashSet<&str>,
    universe: &Universe,
    found: &mut FxHashMap<String, Package>,
) {
    let Some(space) = line.iter().rposition(|b| b.is_ascii_whitespace()) else { return };
    let Ok(owners) = std::str::from_utf8(&line[space + 1..]) else { return };
    for owner in owners.split(',') {
        let name = owner.rsplit('/').next().unwrap_or(owner);
        let known = popular.contains(name);
        if !known && !hash(name).is_multiple_of(ONE_IN) {
            continue;
        }
        let package = found.entry(name.to_owned()).or_insert_with(|| Package {
            name: name.to_owned(),
            popular: known,
            split: Vec::new(),
            merged: Vec::new(),
            info: Vec::new(),
        });
        let path = normal(line[..space].trim_ascii_end());
        let top = path.split(|b| *b == b'/').next().unwrap_or_default();
        let moves = [b"bin".as_slice(), b"sbin", b"lib", b"lib64"].contains(&top);
        let merged = if moves { [b"usr/".as_slice(), &path].concat() } else { path.clone() };
        package.split.extend(universe.find(&path));
        package.merged.extend(universe.find(&merged));
    }
}

fn info(name: &str, universe: &Universe) -> Vec<u32> {
    let file = |suffix: &str, architecture: &str| {
        universe.find(format!("var/lib/dpkg/info/{name}{architecture}.{suffix}").as_bytes())
    };
    let suffixes =
        ["list", "md5sums", "postinst", "prerm", "postrm", "conffiles", "triggers", "shlibs", "symbols"];
    suffixes.iter().filter_map(|s| file(s, "").or_else(|| file(s, ":amd64"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contents_index_is_read() {
        let paths =
            ["bin/nano", "usr/bin/nano", "usr/share/doc/nano/copyright", "var/lib/dpkg/info/nano.list"];
        let universe = Universe::new(paths.iter().map(|p| p.as_bytes().to_vec()).collect());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("Contents");
        let text = "bin/nano      editors/nano\nusr/share/doc/nano/copyright\teditors/nano,x/y z\n\nusr/share/doc/nano/copyright   editors/nano,doc/less\n";
        std::fs::write(&file, text).unwrap();
        let packages = Packages::read(&[&file], &universe).unwrap();
        let nano = packages.list.iter().find(|p| p.name == "nano").unwrap();
        assert!(nano.popular);
        let id = |p: &str| universe.find(p.as_bytes()).unwrap();
        assert_eq!(nano.split, [id("bin/nano"), id("usr/share/doc/nano/copyright")]);
        assert_eq!(nano.merged, [id("usr/bin/nano"), id("usr/share/doc/nano/copyright")]);
        assert_eq!(nano.info, [id("var/lib/dpkg/info/nano.list")]);
        assert!(packages.list.iter().any(|p| p.name == "less"));
        std::fs::write(&file, "").unwrap();
        assert!(Packages::read(&[&file], &universe).is_err());
    }
}
