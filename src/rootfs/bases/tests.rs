use super::*;
use proptest::prelude::*;

fn base(name: &str, paths: &[&str]) -> NewBase {
    NewBase {
        name: name.into(),
        origin: "test".into(),
        created: String::new(),
        paths: paths.iter().map(|p| p.as_bytes().to_vec()).collect(),
    }
}

fn chain(kind: ChainKind, family: &str, name: &str, ids: &[&str]) -> Chain {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    Chain { kind, ids, family: family.into(), names: vec![name.into()] }
}

#[test]
fn a_database_survives_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bases.h5");
    let bases = Bases::new(
        vec![
            base("docker.io/library/debian:12", &["etc/debian_version", "usr/bin/apt"]),
            base("a:1", &["x"]),
        ],
        vec![
            chain(ChainKind::DiffIds, "debian", "debian:12", &["sha256:1"]),
            chain(ChainKind::DiffIds, "debian", "debian:bookworm", &["sha256:1"]),
        ],
        Provenance { sources: vec!["guts x".into()] },
    )
    .unwrap();
    assert_eq!(bases.bases[0].name, "a:1");
    assert_eq!(bases.chains.len(), 1);
    assert_eq!(bases.chains[0].names, ["debian:12", "debian:bookworm"]);
    bases.save(&path).unwrap();
    let first = std::fs::read(&path).unwrap();
    assert_eq!(Bases::load(&path).unwrap(), bases);
    bases.save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    let more = bases.clone().with(vec![base("b:2", &["x", "y"])], vec![], vec!["more".into()]).unwrap();
    assert_eq!(more.bases.len(), 3);
    assert_eq!(more.listed().len(), 4);
    assert!(more.universe.find(b"etc/rocky-release").is_some());
    assert_eq!(more.retain(|b| b.name != "b:2").bases, bases.bases);
    let twice = more.with(vec![base("b:2", &["y"])], vec![], vec![]);
    assert!(matches!(twice, Err(Error::Twice { .. })));
}

#[test]
fn guts_are_read_from_every_packing() {
    let directory = tempfile::tempdir().unwrap();
    let text = br#"{"docker.io/library/x:1": {"paths": {}, "fs": ["/a/b", "/caf\udcc3\udca9", "/caf\u00e8", "/a/b"]}}"#;
    let below = directory.path().join("guts/docker.io");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::write(below.join("1.json"), text).unwrap();
    std::fs::write(below.join("none.json"), br#"{"y:1": {"paths": {}}}"#).unwrap();
    let from_directory = read_guts(&directory.path().join("guts")).unwrap();
    assert_eq!(from_directory.skipped.len(), 1);
    let wanted: Vec<&[u8]> = vec![b"a/b", "café".as_bytes(), "cafè".as_bytes()];
    let mut wanted: Vec<_> = wanted.into_iter().map(<[u8]>::to_vec).collect();
    wanted.sort();
    assert_eq!(from_directory.bases[0].paths, wanted);
    assert_eq!(read_guts(&below.join("1.json")).unwrap().bases[0].paths, wanted);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all("guts", directory.path().join("guts")).unwrap();
    let tar = tar.into_inner().unwrap();
    for (name, bytes) in [("g.tar", tar.clone()), ("g.tar.zst", zstd::encode_all(tar.as_slice(), 1).unwrap())]
    {
        let path = directory.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read_guts(&path).unwrap().bases[0].paths, wanted, "{name}");
        std::fs::write(&path, &bytes[..bytes.len() / 1024 * 512 + 100]).unwrap();
        assert!(matches!(read_guts(&path), Err(Error::Source { .. })), "{name}");
    }
    std::fs::write(below.join("2.json"), b"{\"x\": 1}").unwrap();
    assert!(read_guts(&directory.path().join("guts")).is_err());
}

#[test]
fn evidence_prefers_whole_chains_and_long_ones() {
    let hash = "0".repeat(64);
    let chains = super::chain::join(vec![
        chain(ChainKind::DiffIds, "debian", "debian:12", &["a"]),
        chain(ChainKind::DiffIds, "debian", "debian:sid", &["s", "t", "u"]),
        chain(ChainKind::DiffIds, "ubuntu", "ubuntu:14.04.5", &["w", "x", "y"]),
        chain(ChainKind::DiffIds, "ubuntu", "ubuntu:trusty", &["w", "z"]),
        chain(ChainKind::LayerDigests, "alpine", "alpine:3.19", &["da"]),
        chain(ChainKind::AddFile, "alpine", "alpine:3.18", &[&format!("file:{hash}")]),
    ]);
    let index = ChainIndex::new(&chains);
    let of = |diff_ids: &[&'static str], digests: &[&'static str]| {
        let record =
            Record { diff_ids: diff_ids.to_vec(), layer_digests: digests.to_vec(), ..Record::default() };
        index.evidence(&record).map(|e| (e.family, e.version, e.whole, e.shared))
    };
    let answer = |f: &str, v: Option<&str>, whole, n| Some((f.to_owned(), v.map(str::to_owned), whole, n));
    assert_eq!(of(&["a", "q"], &[]), answer("debian", Some("12"), true, 1));
    assert_eq!(of(&[EMPTY, "a"], &[]), answer("debian", Some("12"), true, 1));
    assert_eq!(of(&["w", "z"], &[]), answer("ubuntu", Some("14.04"), true, 2));
    assert_eq!(of(&["w"], &[]), answer("ubuntu", Some("14.04"), false, 1));
    assert_eq!(of(&["s", "t"], &[]), answer("debian", None, false, 2));
    assert_eq!(of(&["s"], &["da", "db"]), answer("alpine", Some("3.19"), true, 1));
    assert_eq!(of(&["q", "a"], &[]), None);
    assert_eq!(of(&[], &[]), None);
    let command = format!("/bin/sh -c #(nop) ADD file:{hash} in / ");
    let added = Record { first_command: Some(&command), ..Record::default() };
    assert_eq!(index.evidence(&added).unwrap().kind, ChainKind::AddFile);
    let said = Record { base_name: Some("docker.io/library/ubuntu:22.04@sha256:1"), ..Record::default() };
    let said = index.evidence(&said).unwrap();
    assert_eq!((said.family.as_str(), said.version.as_deref()), ("ubuntu", Some("22.04")));
}

const EMPTY: &str = crate::corpus::EMPTY_DIFF_IDS[0];

proptest! {
    /// The index against a plain search over all chains.
    #[test]
    fn longest_chain_is_the_longest(
        chains in prop::collection::vec(prop::collection::vec(0..4u8, 1..4), 1..12),
        image in prop::collection::vec(0..4u8, 0..6),
    ) {
        let chains: Vec<_> = chains.iter().map(|ids| {
            let ids: Vec<_> = ids.iter().map(u8::to_string).collect();
            let name = format!("debian:{}", ids.join("-"));
            Chain { kind: ChainKind::DiffIds, ids, family: "debian".into(), names: vec![name] }
        }).collect();
        let chains = super::chain::join(chains);
        let image: Vec<_> = image.iter().map(u8::to_string).collect();
        let shared = |c: &Chain| c.ids.iter().zip(&image).take_while(|(a, b)| a == b).count();
        let whole = chains.iter().filter(|c| shared(c) == c.ids.len()).map(|c| c.ids.len()).max();
        let part = chains.iter().map(shared).max().filter(|n| *n > 0);
        let record = Record { diff_ids: image.iter().map(String::as_str).collect(), ..Record::default() };
        let found = ChainIndex::new(&chains).evidence(&record);
        prop_assert_eq!(found.as_ref().map(|e| (e.whole, e.shared)),
            whole.map(|n| (true, n)).or(part.map(|n| (false, n))));
    }
}

#[test]
fn a_copy_of_a_distribution_is_still_that() {
    let (debian, copy) = ("docker.io/library/debian:12", "docker.io/lab/aaa:1");
    let both = |chains: [(&str, &str); 2]| {
        super::chain::join(chains.map(|(f, n)| chain(ChainKind::DiffIds, f, n, &["a"])).to_vec())
    };
    let joined = both([("aaa", copy), ("debian", debian)]);
    assert_eq!((joined.len(), joined[0].family.as_str()), (1, "debian"));
    let record = Record { diff_ids: vec!["a", "b"], ..Record::default() };
    let evidence = ChainIndex::new(&joined).evidence(&record).unwrap();
    assert_eq!((evidence.family.as_str(), evidence.version.as_deref()), ("debian", Some("12")));
    assert_eq!(both([("b", "x/b:1"), ("a", "x/a:1")])[0].family, "a");
    let bases = vec![
        base(copy, &["x", "y"]),
        base(debian, &["x", "y"]),
        base("lab/b:1", &["y"]),
        base("lab/c:1", &["y"]),
    ];
    let bases = Bases::new(bases, Vec::new(), Provenance::default()).unwrap();
    let copies: Vec<_> =
        bases.copies().iter().map(|(c, of)| [*c, *of].map(|i| &bases.bases[i].name)).collect();
    assert_eq!(copies, [[copy, debian]]);
}

#[test]
fn beginnings_that_several_families_share_prove_none() {
    let of = |chains: &[(&str, &str, &[&str])]| {
        let chains = chains.iter().map(|(family, name, ids)| chain(ChainKind::DiffIds, family, name, ids));
        let chains = super::chain::join(chains.collect());
        let record = Record { diff_ids: vec!["r", "z"], ..Record::default() };
        ChainIndex::new(&chains).evidence(&record).map(|e| (e.family, e.version))
    };
    let (mine, yours) =
        (("mine", "lab/mine:1.0", &["r", "x"][..]), ("yours", "lab/yours:2.0", &["r", "y", "q"][..]));
    let debian = ("debian", "docker.io/library/debian:12", &["r", "d", "e", "f"][..]);
    let alpine = ("alpine", "alpine:3.19", &["r", "g"][..]);
    assert_eq!(of(&[mine, yours]), None);
    assert_eq!(of(&[mine]), Some(("mine".into(), Some("1".into()))));
    assert_eq!(of(&[mine, yours, debian]), Some(("debian".into(), Some("12".into()))));
    assert_eq!(of(&[mine, alpine, debian]), None);
}
