//! What a layer is: digest, diff_id, size, and the build step that made it. All of it follows from
//! the layer's number, so that a digest means the same in every image.

use super::draw::{Draw, Stream};
use super::shape::layer_size;
use crate::corpus::merge::hex;
use crate::corpus::{EMPTY_DIFF_IDS, KNOWN_EMPTY_LAYERS};

/// Size of both known empty layers in bytes.
const EMPTY_SIZE: u64 = 32;

/// One layer.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    /// Which of the known empty layers it is.
    pub empty: Option<usize>,
    digest: [u8; 32],
    diff_id: [u8; 32],
    pub size: u64,
    /// Decides on the build step.
    pub salt: u64,
}

impl Layer {
    /// The layer of this number, of which the first `empty` are the known empty ones.
    pub fn new(seed: u64, number: usize, empty: usize) -> Self {
        let mut draw = Draw::new(seed, Stream::Layer, number as u64);
        let (digest, diff_id) = (draw.bytes(), draw.bytes());
        let size = layer_size(draw.unit());
        let empty = Some(number).filter(|n| *n < empty);
        Self {
            empty,
            digest,
            diff_id,
            size: if empty.is_some() { EMPTY_SIZE } else { size },
            salt: draw.bits(),
        }
    }

    pub fn write_digest(&self, out: &mut Vec<u8>) {
        match self.empty {
            Some(n) => out.extend_from_slice(KNOWN_EMPTY_LAYERS[n].as_bytes()),
            None => write_sha256(&self.digest, out),
        }
    }

    pub fn write_diff_id(&self, out: &mut Vec<u8>) {
        match self.empty {
            Some(_) => out.extend_from_slice(EMPTY_DIFF_IDS[0].as_bytes()),
            None => write_sha256(&self.diff_id, out),
        }
    }

    /// True if BuildKit made it, not the older builder.
    pub fn by_buildkit(&self) -> bool {
        self.salt >> 63 == 1
    }

    /// The command of the step; `is_base` if the layer is the first of every image it is in.
    pub fn command(&self, is_base: bool) -> String {
        let mut words = Words(self.salt);
        if is_base {
            return format!("/bin/sh -c #(nop) ADD file:{} in / ", hex(&self.diff_id));
        }
        let tool = words.pick(&TOOLS);
        let version = words.version();
        let sum = hex(&self.diff_id);
        let copies = self.size < 1_000_000 && words.next(5) > 0;
        if copies && self.by_buildkit() {
            return match words.next(3) {
                0 => format!("COPY {tool}.conf /etc/{tool}/{tool}.conf # buildkit"),
                1 => format!("COPY ./{tool} /opt/{tool}-{version} # buildkit"),
                _ => format!("COPY /build/bin/{tool} /usr/local/bin/{tool} # buildkit"),
            };
        }
        if copies {
            return match words.next(3) {
                0 => format!("/bin/sh -c #(nop) COPY file:{sum} in /usr/local/bin/{tool} "),
                1 => format!("/bin/sh -c #(nop) COPY dir:{sum} in /opt/{tool}/ "),
                _ => format!("/bin/sh -c #(nop) ADD file:{sum} in /etc/{tool}/ "),
            };
        }
        let run = if self.size < 20_000 { words.small_run(tool) } else { words.large_run(tool, &version) };
        if self.by_buildkit() {
            format!("RUN /bin/sh -c {run} # buildkit")
        } else {
            format!("/bin/sh -c {run}")
        }
    }

    /// A step after this one that makes no layer, if there is one.
    pub fn step_after(&self, is_base: bool) -> Option<String> {
        let nop = if self.by_buildkit() { "" } else { "/bin/sh -c #(nop)  " };
        if is_base {
            return Some(format!("{nop}CMD [\"bash\"]"));
        }
        let mut words = Words(self.salt.rotate_left(17));
        let tool = words.pick(&TOOLS);
        match words.next(12) {
            0 => Some(format!("{nop}ENV {}_VERSION={}", tool.to_uppercase(), words.version())),
            1 => Some(format!("{nop}LABEL org.example.component={tool}")),
            2 => Some(format!("{nop}ENV PATH=/opt/{tool}/bin:/usr/local/bin:/usr/bin:/bin")),
            3 => Some(format!("{nop}USER {tool}")),
            _ => None,
        }
    }
}

/// The command of a step that made a known empty layer: of which kind, in which repository, and
/// the how many-th of the image.
pub(super) fn empty_command(kind: usize, salt: u64, nth: usize) -> String {
    let mut words = Words(salt.wrapping_add(nth as u64));
    let tool = words.pick(&TOOLS);
    match (kind, words.next(4)) {
        (0, 0) => format!("RUN /bin/sh -c ldconfig && test -d /opt/{tool} # buildkit"),
        (0, _) => format!("WORKDIR /opt/{tool}"),
        (_, 0) => "/bin/sh -c #(nop) MAINTAINER synthetic@example.org".to_owned(),
        (_, 1) => format!("/bin/sh -c #(nop) ENV {}_HOME=/opt/{tool}", tool.to_uppercase()),
        (_, 2) => format!("/bin/sh -c #(nop) EXPOSE {}/tcp", 8000 + words.next(1000)),
        _ => format!("/bin/sh -c #(nop) CMD [\"{tool}\"]"),
    }
}

/// Names of tools that do not exist.
pub(super) const TOOLS: [&str; 32] = [
    "aligner",
    "basecaller",
    "binner",
    "caller",
    "denoiser",
    "detector",
    "estimator",
    "folder",
    "gridder",
    "imputer",
    "indexer",
    "joiner",
    "kriger",
    "linker",
    "mapper",
    "mesher",
    "normaliser",
    "optimiser",
    "phaser",
    "plotter",
    "quantifier",
    "ranker",
    "sampler",
    "scaffolder",
    "segmenter",
    "simulator",
    "solver",
    "splicer",
    "stacker",
    "tracker",
    "trimmer",
    "viewer",
];

const PACKAGES: [&str; 24] = [
    "build-essential",
    "bzip2",
    "ca-certificates",
    "cmake",
    "curl",
    "g++",
    "gfortran",
    "git",
    "less",
    "libbz2-dev",
    "libcurl4-openssl-dev",
    "libfftw3-dev",
    "libgsl-dev",
    "libhdf5-dev",
    "liblapack-dev",
    "libopenmpi-dev",
    "locales",
    "make",
    "pkg-config",
    "python3",
    "python3-pip",
    "unzip",
    "wget",
    "zlib1g-dev",
];

const LIBRARIES: [&str; 12] = [
    "click",
    "dask",
    "h5py",
    "matplotlib",
    "networkx",
    "numpy",
    "pandas",
    "pyyaml",
    "requests",
    "scikit-learn",
    "scipy",
    "tqdm",
];

/// Picks words by the digits of a number.
struct Words(u64);

impl Words {
    fn next(&mut self, n: u64) -> u64 {
        // The multiplier of Knuth's MMIX generator; its high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn pick<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.next(words.len() as u64) as usize]
    }

    fn some(&mut self, words: &[&str], least: u64) -> String {
        let mut order: Vec<usize> = (0..words.len()).collect();
        let count = (least + self.next(4)) as usize;
        for i in 0..count {
            let other = i + self.next((words.len() - i) as u64) as usize;
            order.swap(i, other);
        }
        order.truncate(count);
        order.sort_unstable();
        order.iter().map(|i| words[*i]).collect::<Vec<_>>().join(" ")
    }

    fn version(&mut self) -> String {
        format!("{}.{}.{}", self.next(5), self.next(20), self.next(10))
    }

    fn small_run(&mut self, tool: &str) -> String {
        match self.next(5) {
            0 => format!("useradd --create-home --uid {} {tool}", 1000 + self.next(64)),
            1 => format!("mkdir -p /data/{tool} && chown -R nobody /data/{tool}"),
            2 => format!("ln -s /opt/{tool}/bin/{tool} /usr/local/bin/{tool}"),
            3 => format!("sed -i 's/threads=1/threads={}/' /etc/{tool}/{tool}.conf", 2 + self.next(31)),
            _ => format!("chmod -R a+rX /opt/{tool}"),
        }
    }

    fn large_run(&mut self, tool: &str, version: &str) -> String {
        match self.next(8) {
            0..=2 => {
                let clean = [
                    "",
                    " && rm -rf /var/lib/apt/lists/*",
                    " && apt-get clean && rm -rf /var/lib/apt/lists/*",
                ];
                let option = ["", "--no-install-recommends "][self.next(2) as usize];
                let clean = clean[self.next(3) as usize];
                let packages = self.some(&PACKAGES, 2);
                format!("apt-get update && apt-get install -y {option}{packages}{clean}")
            }
            3 | 4 => format!("pip install --no-cache-dir {}", self.some(&LIBRARIES, 1)),
            5 => format!("conda install -y -c synthetic {tool}={version} {}", self.some(&LIBRARIES, 1)),
            6 => format!(
                "curl -fsSL https://downloads.example.org/{tool}-{version}.tar.gz | tar -xz -C /opt && make -C /opt/{tool}-{version} install"
            ),
            _ => format!(
                "git clone --branch v{version} https://git.example.org/synthetic/{tool}.git /src/{tool} && cmake -S /src/{tool} -B /build && cmake --build /build --target install"
            ),
        }
    }
}

pub(super) fn write_sha256(sum: &[u8; 32], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"sha256:");
    for byte in sum {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}
