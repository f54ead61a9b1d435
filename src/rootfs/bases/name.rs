//! Names of base images: which repositories are official, and which version a tag means.

/// Distributions whose official repositories are taken as bases, by the name of the repository.
pub const DISTRIBUTIONS: [&str; 22] = [
    "almalinux",
    "alpine",
    "alt",
    "amazonlinux",
    "archlinux",
    "busybox",
    "centos",
    "cirros",
    "clearlinux",
    "crux",
    "debian",
    "fedora",
    "mageia",
    "opensuse",
    "opensuse/leap",
    "opensuse/tumbleweed",
    "oraclelinux",
    "photon",
    "rockylinux",
    "scientific",
    "ubuntu",
    "ubuntu-debootstrap",
];

/// Registry hosts and user names under which Docker's official images are served unchanged: Docker
/// Hub itself, its pull-through mirrors, and the per-architecture users of the official images.
const PREFIXES: [&str; 20] = [
    "docker.io/",
    "index.docker.io/",
    "registry.hub.docker.com/",
    "registry-1.docker.io/",
    "mirror.gcr.io/",
    "docker.mirror.hashicorp.services/",
    "library/",
    "stackbrew/",
    "amd64/",
    "arm32v5/",
    "arm32v6/",
    "arm32v7/",
    "arm64v8/",
    "i386/",
    "mips64le/",
    "ppc64le/",
    "riscv64/",
    "s390x/",
    "rockylinux/",
    "fedora/",
];

/// The distribution of an official repository: `debian` for `debian`, `library/debian`,
/// `docker.io/library/debian`, `arm64v8/debian`; `None` for every other repository.
pub fn official_family(repository: &str) -> Option<&'static str> {
    let mut rest = repository;
    loop {
        if let Some(found) = DISTRIBUTIONS.iter().find(|name| **name == rest) {
            return Some(found);
        }
        rest = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    }
}

/// Code names of releases, for tags that name no number.
const CODE_NAMES: [(&str, &str, &str); 32] = [
    ("debian", "wheezy", "7"),
    ("debian", "jessie", "8"),
    ("debian", "stretch", "9"),
    ("debian", "buster", "10"),
    ("debian", "bullseye", "11"),
    ("debian", "bookworm", "12"),
    ("debian", "trixie", "13"),
    ("debian", "forky", "14"),
    ("ubuntu", "lucid", "10.04"),
    ("ubuntu", "precise", "12.04"),
    ("ubuntu", "quantal", "12.10"),
    ("ubuntu", "raring", "13.04"),
    ("ubuntu", "saucy", "13.10"),
    ("ubuntu", "trusty", "14.04"),
    ("ubuntu", "utopic", "14.10"),
    ("ubuntu", "vivid", "15.04"),
    ("ubuntu", "wily", "15.10"),
    ("ubuntu", "xenial", "16.04"),
    ("ubuntu", "yakkety", "16.10"),
    ("ubuntu", "zesty", "17.04"),
    ("ubuntu", "artful", "17.10"),
    ("ubuntu", "bionic", "18.04"),
    ("ubuntu", "cosmic", "18.10"),
    ("ubuntu", "disco", "19.04"),
    ("ubuntu", "eoan", "19.10"),
    ("ubuntu", "focal", "20.04"),
    ("ubuntu", "groovy", "20.10"),
    ("ubuntu", "hirsute", "21.04"),
    ("ubuntu", "impish", "21.10"),
    ("ubuntu", "jammy", "22.04"),
    ("ubuntu", "kinetic", "22.10"),
    ("ubuntu", "noble", "24.04"),
];

/// Repository and tag of a name; a digest behind them does not count.
pub fn repository_and_tag(name: &str) -> (&str, Option<&str>) {
    let plain = name.split('@').next().unwrap_or(name);
    let slash = plain.rfind('/').map_or(0, |at| at + 1);
    match plain[slash..].split_once(':') {
        Some((last, tag)) => (&plain[..slash + last.len()], Some(tag)),
        None => (plain, None),
    }
}

/// True for an image of an official repository of a distribution.
pub(super) fn is_official(name: &str) -> bool {
    official_family(repository_and_tag(name).0).is_some()
}

/// Splits `docker.io/library/debian:12` into family and version. A name without a tag has the
/// version `latest`.
pub fn family_and_version(name: &str) -> (String, String) {
    let (repository, tag) = repository_and_tag(name);
    let tag = tag.unwrap_or("latest");
    let last = repository.rsplit('/').next().unwrap_or(repository);
    (official_family(repository).unwrap_or(last).to_owned(), tag.to_owned())
}

/// The release that a tag of an official repository means, as the database writes it: `12` for
/// `12`, `12.5-slim`, `bookworm-20240513`; `3.19` for `3.19.1`; `None` for `latest`.
pub fn version_of_tag(family: &str, tag: &str) -> Option<String> {
    let first = tag.split('-').next().unwrap_or(tag).to_lowercase();
    let first = first.strip_prefix(family).unwrap_or(&first);
    let named = CODE_NAMES.iter().find(|(of, name, _)| *of == family && *name == first);
    if let Some((_, _, version)) = named {
        return Some((*version).to_owned());
    }
    let first = first.trim_start_matches('v');
    let numbers: Vec<_> = first.split('.').collect();
    let numeric =
        |part: &&str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit());
    if !numbers.iter().all(numeric) {
        return None;
    }
    let depth = match family {
        "alpine" | "ubuntu" | "busybox" | "opensuse/leap" => 2,
        _ => 1,
    };
    Some(numbers[..numbers.len().min(depth)].join("."))
}

/// The release that a set of tags of one image agree on, if they do.
pub fn version_of_tags<'a>(family: &str, tags: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut versions: Vec<_> = tags.into_iter().filter_map(|tag| version_of_tag(family, tag)).collect();
    versions.sort_by_key(|version| std::cmp::Reverse(version.len()));
    let longest = versions.first()?.clone();
    // `3` and `3.19` are the same image; `3.18` and `3.19` are not.
    let agrees = |short: &String| longest == *short || longest.starts_with(&format!("{short}."));
    versions.iter().all(agrees).then_some(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn official_names() {
        for (name, family) in [
            ("ubuntu", Some("ubuntu")),
            ("library/ubuntu", Some("ubuntu")),
            ("docker.io/library/ubuntu", Some("ubuntu")),
            ("docker.io/arm64v8/alpine", Some("alpine")),
            ("opensuse/leap", Some("opensuse/leap")),
            ("someone/ubuntu", None),
            ("ubuntu/nginx", None),
            ("mirror.gcr.io/library/python", None),
        ] {
            assert_eq!(official_family(name), family, "{name}");
        }
        let split = |name| family_and_version(name);
        assert_eq!(split("docker.io/library/debian:12"), ("debian".into(), "12".into()));
        assert_eq!(split("localhost:5000/mine"), ("mine".into(), "latest".into()));
        assert_eq!(split("localhost:5000/a/mine:v1"), ("mine".into(), "v1".into()));
        assert_eq!(split("docker.io/library/debian:12@sha256:ab"), ("debian".into(), "12".into()));
        assert_eq!(split("docker.io/library/alpine@sha256:ab"), ("alpine".into(), "latest".into()));
    }

    #[test]
    fn versions_of_tags() {
        for (family, tag, version) in [
            ("debian", "12", Some("12")),
            ("debian", "12.5-slim", Some("12")),
            ("debian", "bookworm-20240513", Some("12")),
            ("debian", "latest", None),
            ("debian", "sid", None),
            ("alpine", "3.19.1", Some("3.19")),
            ("alpine", "20230901", None),
            ("ubuntu", "jammy-20240405", Some("22.04")),
            ("ubuntu", "focal", Some("20.04")),
            ("centos", "centos7.9.2009", Some("7")),
            ("centos", "7.6.1810", Some("7")),
            ("rockylinux", "9.3-minimal", Some("9")),
            ("busybox", "1.36.1-uclibc", Some("1.36")),
            ("busybox", "glibc", None),
        ] {
            assert_eq!(version_of_tag(family, tag).as_deref(), version, "{family}:{tag}");
        }
        assert_eq!(version_of_tags("alpine", ["latest", "3", "3.19", "3.19.1"]).as_deref(), Some("3.19"));
        assert_eq!(version_of_tags("alpine", ["3.18", "3.19"]), None);
        assert_eq!(version_of_tags("alpine", ["latest"]), None);
    }
}
