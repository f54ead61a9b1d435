//! Where distributions sign themselves: files that carry the name of a distribution at places where
//! tools look for it.
//!
//! They are what close relatives differ in, and the only thing that tells an image of a family that
//! the database does not hold (Linux Mint) from one that it holds and that is nearly the same
//! (Ubuntu). So they are part of every universe, whether or not a base has them: an image that
//! is signed by another distribution than its likeness says is not of that family.
//!
//! The list comes from conventions, not from bases: `os-release(5)` and its forerunners
//! (`/etc/NAME-release`), Debian's `deb-origin(5)` (`/etc/dpkg/origins/NAME`) and archive keyrings, the
//! release and repository packages of RPM distributions. What derivatives keep by the same conventions
//! (`/etc/debian_version`, `/etc/dpkg/origins/debian`, `/etc/redhat-release`) is no sign.

/// How a distribution names its packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tools {
    Dpkg,
    Rpm,
    Other,
}

/// A distribution: family as bases are called, its name as it stands in files, its tools, and places
/// that follow no convention.
struct Distribution {
    family: &'static str,
    names: &'static [&'static str],
    tools: Tools,
    more: &'static [&'static str],
}

const fn signed(
    family: &'static str,
    names: &'static [&'static str],
    tools: Tools,
    more: &'static [&'static str],
) -> Distribution {
    Distribution { family, names, tools, more }
}

use Tools::{Dpkg, Other, Rpm};

const DISTRIBUTIONS: [Distribution; 44] = [
    signed("debian", &["debian"], Dpkg, &[]),
    signed("ubuntu", &["ubuntu"], Dpkg, &[]),
    signed("astra", &["astra"], Dpkg, &[]),
    signed("deepin", &["deepin"], Dpkg, &[]),
    signed("devuan", &["devuan"], Dpkg, &["etc/devuan_version"]),
    signed("elementary", &["elementary"], Dpkg, &[]),
    signed("kali", &["kali"], Dpkg, &[]),
    signed("linuxmint", &["linuxmint"], Dpkg, &["etc/linuxmint/info"]),
    signed("parrot", &["parrot"], Dpkg, &[]),
    signed("pardus", &["pardus"], Dpkg, &[]),
    signed("pop", &["pop-os", "pop"], Dpkg, &[]),
    signed("pureos", &["pureos"], Dpkg, &[]),
    signed("raspbian", &["raspbian"], Dpkg, &["etc/rpi-issue"]),
    signed("tanglu", &["tanglu"], Dpkg, &[]),
    signed("trisquel", &["trisquel"], Dpkg, &[]),
    signed("uos", &["uos"], Dpkg, &[]),
    signed("almalinux", &["almalinux", "AlmaLinux"], Rpm, &[]),
    signed(
        "amazonlinux",
        &["amazon-linux", "amazonlinux"],
        Rpm,
        &[
            "etc/pki/rpm-gpg/RPM-GPG-KEY-amazon-linux-2",
            "etc/pki/rpm-gpg/RPM-GPG-KEY-amazon-linux-2023",
            "etc/yum.repos.d/amzn2-core.repo",
            "etc/yum.repos.d/amzn2-extras.repo",
        ],
    ),
    signed("anolis", &["anolis", "Anolis", "AnolisOS"], Rpm, &[]),
    signed("azurelinux", &["azurelinux"], Rpm, &["etc/yum.repos.d/azurelinux-official-base.repo"]),
    signed("centos", &["centos", "CentOS"], Rpm, &[]),
    signed("circle", &["circle", "Circle"], Rpm, &[]),
    signed("eurolinux", &["eurolinux"], Rpm, &[]),
    signed("fedora", &["fedora", "Fedora"], Rpm, &[]),
    signed("mageia", &["mageia", "Mageia"], Rpm, &[]),
    signed("mariner", &["mariner"], Rpm, &["etc/yum.repos.d/mariner-official-base.repo"]),
    signed("openeuler", &["openEuler", "openeuler"], Rpm, &[]),
    signed(
        "oraclelinux",
        &["oracle", "oraclelinux"],
        Rpm,
        &["etc/yum.repos.d/oracle-linux-ol8.repo", "etc/yum.repos.d/oracle-linux-ol9.repo"],
    ),
    signed("photon", &["photon"], Rpm, &["etc/pki/rpm-gpg/VMWARE-RPM-GPG-KEY"]),
    signed("rockylinux", &["rocky", "Rocky"], Rpm, &[]),
    signed("scientific", &["sl"], Rpm, &["etc/pki/rpm-gpg/RPM-GPG-KEY-sl7"]),
    signed("springdale", &["springdale"], Rpm, &[]),
    signed(
        "opensuse",
        &["openSUSE", "opensuse", "SuSE", "suse"],
        Rpm,
        &["etc/products.d/openSUSE.prod", "etc/products.d/Leap.prod", "etc/zypp/zypp.conf"],
    ),
    signed("alpine", &["alpine"], Other, &[]),
    signed("alt", &["altlinux"], Other, &[]),
    signed("archlinux", &["arch"], Other, &["usr/share/pacman/keyrings/archlinux.gpg"]),
    signed("chainguard", &["chainguard"], Other, &["etc/apk/keys/chainguard-extras.rsa.pub"]),
    signed("cirros", &["cirros"], Other, &["etc/cirros/version"]),
    signed("clearlinux", &["clear-linux-os"], Other, &["usr/share/clear/version"]),
    signed("gentoo", &["gentoo"], Other, &[]),
    signed("nixos", &["nixos"], Other, &["etc/NIXOS"]),
    signed("openwrt", &["openwrt"], Other, &["etc/openwrt_release"]),
    signed("slackware", &["slackware"], Other, &[]),
    signed("wolfi", &["wolfi"], Other, &["etc/apk/keys/wolfi-signing.rsa.pub"]),
];

/// Where every distribution may sign; `@` is its name.
const ANYWHERE: [&str; 5] =
    ["etc/@-release", "etc/@_version", "etc/@-version", "usr/lib/@-release", "etc/@-release-upstream"];

/// Where Debian and its derivatives sign.
const OF_DPKG: [&str; 16] = [
    "etc/dpkg/origins/@",
    "etc/apt/apt.conf.d/01-vendor-@",
    "usr/share/keyrings/@-keyring.gpg",
    "usr/share/keyrings/@-archive-keyring.gpg",
    "usr/share/keyrings/@-archive-removed-keys.gpg",
    "usr/share/keyrings/@-master-keyring.gpg",
    "usr/share/doc/@-keyring/copyright",
    "usr/share/doc/@-keyring/changelog.gz",
    "usr/share/doc/@-archive-keyring/copyright",
    "usr/share/doc/@-archive-keyring/changelog.gz",
    "var/lib/dpkg/info/@-keyring.list",
    "var/lib/dpkg/info/@-keyring.md5sums",
    "var/lib/dpkg/info/@-keyring.postinst",
    "var/lib/dpkg/info/@-archive-keyring.list",
    "var/lib/dpkg/info/@-archive-keyring.md5sums",
    "var/lib/dpkg/info/@-archive-keyring.postinst",
];

/// Where distributions with RPM sign.
const OF_RPM: [&str; 21] = [
    "usr/share/@-release/EULA",
    "etc/pki/rpm-gpg/RPM-GPG-KEY-@",
    "etc/pki/rpm-gpg/RPM-GPG-KEY-@official",
    "etc/pki/rpm-gpg/RPM-GPG-KEY-@testing",
    "etc/yum.repos.d/@.repo",
    "etc/yum.repos.d/@-AppStream.repo",
    "etc/yum.repos.d/@-Base.repo",
    "etc/yum.repos.d/@-BaseOS.repo",
    "etc/yum.repos.d/@-CR.repo",
    "etc/yum.repos.d/@-Debuginfo.repo",
    "etc/yum.repos.d/@-Extras.repo",
    "etc/yum.repos.d/@-Linux-AppStream.repo",
    "etc/yum.repos.d/@-Linux-BaseOS.repo",
    "etc/yum.repos.d/@-Linux-Extras.repo",
    "etc/yum.repos.d/@-Media.repo",
    "etc/yum.repos.d/@-Sources.repo",
    "etc/yum.repos.d/@-Vault.repo",
    "etc/yum.repos.d/@-addons.repo",
    "etc/yum.repos.d/@-devel.repo",
    "etc/yum.repos.d/@-extras.repo",
    "etc/yum.repos.d/@-updates.repo",
];

/// Signs of a family that its derivatives have, too.
const INHERITED: [&str; 2] = ["etc/debian_version", "etc/dpkg/origins/debian"];

/// All places and the number of the distribution that signs there.
pub fn signs() -> impl Iterator<Item = (u16, String)> {
    DISTRIBUTIONS.iter().zip(0..).flat_map(|(of, number)| {
        let places: &[&str] = match of.tools {
            Tools::Dpkg => &OF_DPKG,
            Tools::Rpm => &OF_RPM,
            Tools::Other => &[],
        };
        let places = ANYWHERE.iter().chain(places);
        let named = places.flat_map(|place| of.names.iter().map(move |name| place.replace('@', name)));
        let named = named.filter(|path| !INHERITED.contains(&path.as_str()));
        named.chain(of.more.iter().map(|place| (*place).to_owned())).map(move |path| (number, path))
    })
}

/// True if a sign is of a keyring, which is a package of its own: whoever fetches packages of a
/// distribution or bootstraps it installs that, on whatever distribution (Debian's is in Ubuntu's archive,
/// and the reverse). All other signs are of packages that only the distribution itself has.
pub fn is_keyring(path: &[u8]) -> bool {
    path.windows(7).any(|part| part == b"keyring")
}

/// The number of the distribution that bases of a family are of, if it is known.
pub fn distribution_of(family: &str) -> Option<u16> {
    let last = family.rsplit('/').next().unwrap_or(family);
    let known = |of: &Distribution| {
        of.family == family || of.family == last || family.starts_with(&format!("{}/", of.family))
    };
    DISTRIBUTIONS.iter().position(known).map(|number| number as u16)
}

/// Number of distributions.
pub const COUNT: usize = DISTRIBUTIONS.len();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::paths::normal;
    use std::collections::BTreeMap;

    #[test]
    fn each_place_is_signed_by_one_distribution() {
        let mut by: BTreeMap<String, u16> = BTreeMap::new();
        for (number, path) in signs() {
            assert_eq!(normal(path.as_bytes()), path.as_bytes());
            assert_eq!(*by.entry(path.clone()).or_insert(number), number, "{path}");
        }
        let of = |path: &str| by.get(path).copied();
        assert_eq!(of("etc/rocky-release"), distribution_of("rockylinux"));
        assert_eq!(of("etc/dpkg/origins/ubuntu"), distribution_of("ubuntu"));
        assert_eq!(of("etc/SuSE-release"), distribution_of("opensuse/leap"));
        assert_eq!(distribution_of("mine"), None);
        assert_eq!(of("etc/os-release"), None);
        let keyrings = |path: &str| of(path).is_some() && is_keyring(path.as_bytes());
        assert!(keyrings("usr/share/keyrings/debian-archive-removed-keys.gpg"));
        assert!(keyrings("var/lib/dpkg/info/ubuntu-keyring.list") && !keyrings("etc/dpkg/origins/ubuntu"));
    }
}
