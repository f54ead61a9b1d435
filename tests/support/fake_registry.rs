//! A registry that misbehaves on request: what a real one does only on a bad day.
//!
//! It speaks enough HTTP/1.1 for the tests (one answer for each request, kept-alive connections),
//! serves manifests, blobs and tags, and keeps a log of what it was asked.

use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What to do wrong, once, with the next request whose path contains the given text.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answer with this status and these header lines.
    Status(u16, Vec<String>),
    /// Answer with this status and this text.
    Text(u16, &'static str),
    /// Say the right length, send this many bytes, close.
    Cut(usize),
    /// Say the right length, send this many bytes, then nothing for a long time.
    Stall(usize),
    /// Say and send only this many bytes.
    Lie(usize),
    /// Send these bytes more than there are, and say so.
    Longer(usize),
    /// Flip a bit of the first byte.
    Corrupt,
    /// Send everything although a range was asked for.
    IgnoreRange,
    /// Answer a range that starts one byte later than asked.
    WrongRange,
}

/// Who may read.
#[derive(Clone, Debug, Default)]
pub enum Guard {
    #[default]
    Nobody,
    /// Name and password in each request.
    Basic(String),
    /// A token from `realm`; with a pair, only for who gives it to the token service.
    Bearer { realm: String, pair: Option<String>, life: u64 },
}

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    pub body: String,
    /// When it had come.
    pub at: Instant,
}

#[derive(Default)]
struct State {
    documents: HashMap<String, (String, Vec<u8>)>,
    pages: HashMap<String, (Vec<String>, Option<String>)>,
    faults: VecDeque<(String, Fault)>,
    redirects: Vec<(String, String)>,
    guard: Guard,
    tokens: u32,
    hellos: usize,
    slow: Duration,
    in_flight: usize,
    most_in_flight: usize,
    log: Vec<Asked>,
}

pub struct FakeRegistry {
    address: String,
    state: Arc<Mutex<State>>,
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

impl FakeRegistry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, state }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The same place under another host name.
    pub fn other_name(&self) -> String {
        self.address.replace("127.0.0.1", "localhost")
    }

    pub fn add_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.add(&format!("/v2/{repository}/blobs/{digest}"), "application/octet-stream", bytes);
        digest
    }

    pub fn add_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.add(&format!("/v2/{repository}/manifests/{tag}"), media_type, bytes);
        self.add(&format!("/v2/{repository}/manifests/{digest}"), media_type, bytes);
        digest
    }

    fn add(&self, path: &str, media_type: &str, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        state.documents.insert(path.to_owned(), (media_type.to_owned(), bytes.to_vec()));
    }

    /// One page of tags at `path` (with its query), and the `Link` to the next.
    pub fn add_page(&self, path: &str, tags: &[&str], link: Option<&str>) {
        let tags = tags.iter().map(|t| (*t).to_owned()).collect();
        self.state.lock().unwrap().pages.insert(path.to_owned(), (tags, link.map(str::to_owned)));
    }

    pub fn fault(&self, path_contains: &str, fault: Fault) {
        self.state.lock().unwrap().faults.push_back((path_contains.to_owned(), fault));
    }

    /// From now on requests whose path contains this are sent elsewhere.
    pub fn redirect(&self, path_contains: &str, to: &str) {
        self.state.lock().unwrap().redirects.push((path_contains.to_owned(), to.to_owned()));
    }

    pub fn guard(&self, guard: Guard) {
        self.state.lock().unwrap().guard = guard;
    }

    /// Tokens given out so far cease to work.
    pub fn revoke(&self) {
        self.state.lock().unwrap().tokens += 1000;
    }

    /// From now on each answer takes so long.
    pub fn slowly(&self, pause: Duration) {
        self.state.lock().unwrap().slow = pause;
    }

    /// The most requests so far that waited for their answers at the same time.
    pub fn most_in_flight(&self) -> usize {
        self.state.lock().unwrap().most_in_flight
    }

    /// Connections so far that began in TLS.
    pub fn hellos(&self) -> usize {
        self.state.lock().unwrap().hellos
    }

    /// Requests so far whose path contains this.
    pub fn asked(&self, path_contains: &str) -> Vec<Asked> {
        let state = self.state.lock().unwrap();
        state.log.iter().filter(|a| a.path.contains(path_contains)).cloned().collect()
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reading);
    let mut writer = stream;
    // Who begins in TLS is answered in plain text, as by servers that do not speak it.
    if reader.fill_buf().is_ok_and(|bytes| bytes.first() == Some(&0x16)) {
        state.lock().unwrap().hellos += 1;
        let _ = send(&mut writer, 400, &[], b"400 Bad Request");
        return;
    }
    while let Some(asked) = read_request(&mut reader) {
        let pause = {
            let mut state = state.lock().unwrap();
            state.in_flight += 1;
            state.most_in_flight = state.most_in_flight.max(state.in_flight);
            state.slow
        };
        std::thread::sleep(pause);
        // Before the answer: who has that may ask again at once.
        state.lock().unwrap().in_flight -= 1;
        if answer(&mut writer, state, asked).is_none() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut asked =
        Asked { method, path, authorization: None, range: None, body: String::new(), at: Instant::now() };
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        let value = value.trim().to_owned();
        match name.to_ascii_lowercase().as_str() {
            "authorization" => asked.authorization = Some(value),
            "range" => asked.range = Some(value),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    std::io::Read::read_exact(reader, &mut body).ok()?;
    asked.body = String::from_utf8_lossy(&body).into_owned();
    Some(asked)
}

/// `None` if the connection is to be closed.
fn answer(writer: &mut TcpStream, state: &Mutex<State>, asked: Asked) -> Option<()> {
    let mut state = state.lock().unwrap();
    state.log.push(asked.clone());
    let path = asked.path.as_str();
    let at = state.faults.iter().position(|(text, _)| path.contains(text.as_str()));
    let fault = at.and_then(|at| state.faults.remove(at)).map(|(_, fault)| fault);
    if let Some(Fault::Status(status, headers)) = fault {
        return send(writer, status, &headers, b"{\"errors\":[{\"message\":\"as ordered\"}]}");
    }
    if let Some(Fault::Text(status, text)) = fault {
        return send(writer, status, &[], text.as_bytes());
    }
    if path.starts_with("/token") {
        return token(writer, &mut state, &asked, fault);
    }
    if let Some(refusal) = refusal(&state, &asked) {
        return send(writer, 401, &[format!("WWW-Authenticate: {refusal}")], b"");
    }
    if let Some((_, to)) = state.redirects.iter().find(|(text, _)| path.contains(text.as_str())) {
        return send(writer, 307, &[format!("Location: {to}{path}")], b"");
    }
    if path == "/v2/" {
        return send(writer, 200, &[], b"{}");
    }
    if let Some((tags, link)) = state.pages.get(path) {
        let body = serde_json::json!({"name": "x", "tags": tags}).to_string();
        let link = link.iter().map(|l| format!("Link: {l}")).collect::<Vec<_>>();
        return send_or_break(writer, fault, 200, &link, body.as_bytes());
    }
    let Some((media_type, bytes)) = state.documents.get(path).cloned() else {
        return send(writer, 404, &[], b"{\"errors\":[{\"code\":\"NOT_FOUND\",\"message\":\"not here\"}]}");
    };
    drop(state);
    document(writer, &asked, fault, &media_type, bytes)
}

fn document(
    writer: &mut TcpStream,
    asked: &Asked,
    fault: Option<Fault>,
    media_type: &str,
    mut bytes: Vec<u8>,
) -> Option<()> {
    let mut headers = vec![format!("Content-Type: {media_type}")];
    if asked.path.contains("/manifests/") {
        headers.push(format!("Docker-Content-Digest: {}", digest(&bytes)));
    }
    let mut status = 200;
    let range = asked.range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    if let Some((first, last)) = range
        && !matches!(fault, Some(Fault::IgnoreRange))
    {
        let all = bytes.len();
        let first = first.parse::<usize>().ok()? + usize::from(matches!(fault, Some(Fault::WrongRange)));
        let end = last.parse::<usize>().map_or(all, |last| (last + 1).min(all));
        headers.push(format!("Content-Range: bytes {first}-{}/{all}", end - 1));
        bytes = bytes[first..end].to_vec();
        status = 206;
    }
    match fault {
        Some(Fault::Corrupt) => bytes[0] ^= 1,
        Some(Fault::Lie(n)) => bytes.truncate(n),
        Some(Fault::Longer(n)) => bytes.extend(std::iter::repeat_n(0, n)),
        _ => {}
    }
    send_or_break(writer, fault, status, &headers, &bytes)
}

fn send_or_break(
    writer: &mut TcpStream,
    fault: Option<Fault>,
    status: u16,
    headers: &[String],
    bytes: &[u8],
) -> Option<()> {
    let Some(Fault::Cut(n) | Fault::Stall(n)) = fault else { return send(writer, status, headers, bytes) };
    writer.write_all(head(status, headers, bytes.len()).as_bytes()).ok()?;
    writer.write_all(&bytes[..n.min(bytes.len())]).ok()?;
    writer.flush().ok()?;
    if matches!(fault, Some(Fault::Stall(_))) {
        std::thread::sleep(Duration::from_secs(60));
    }
    None
}

/// The challenge, if the request may not pass.
fn refusal(state: &State, asked: &Asked) -> Option<String> {
    let given = asked.authorization.as_deref();
    match &state.guard {
        Guard::Nobody => None,
        Guard::Basic(pair) => {
            (given != Some(&format!("Basic {}", base64(pair)))).then(|| "Basic realm=\"fake\"".to_owned())
        }
        Guard::Bearer { realm, .. } => {
            let right = (state.tokens / 1000 * 1000..=state.tokens)
                .any(|n| given == Some(format!("Bearer token-{n}-for-{}", repository(&asked.path)).as_str()));
            (!right).then(|| format!("Bearer realm=\"{realm}\",service=\"fake\""))
        }
    }
}

fn token(writer: &mut TcpStream, state: &mut State, asked: &Asked, fault: Option<Fault>) -> Option<()> {
    let Guard::Bearer { pair, life, .. } = state.guard.clone() else { return send(writer, 404, &[], b"") };
    let fields = if asked.method == "POST" { asked.body.as_str() } else { asked.path.as_str() };
    let refreshed = fields.contains("refresh_token=refresh-me");
    if let Some(pair) = pair
        && asked.authorization != Some(format!("Basic {}", base64(&pair)))
        && !refreshed
    {
        return send(writer, 401, &[], b"{\"details\":\"incorrect username or password\"}");
    }
    state.tokens += 1;
    let scope = fields.split("repository%3A").nth(1).and_then(|s| s.split("%3Apull").next());
    let scope = scope.unwrap_or_default().replace("%2F", "/");
    let token = format!("token-{}-for-{scope}", state.tokens);
    let body = serde_json::json!({"token": token, "access_token": token, "expires_in": life}).to_string();
    send_or_break(writer, fault, 200, &[], body.as_bytes())
}

fn repository(path: &str) -> &str {
    let path = path.strip_prefix("/v2/").unwrap_or_default();
    ["/manifests/", "/blobs/", "/tags/"].iter().find_map(|s| path.split_once(s)).map_or("", |(r, _)| r)
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(text)
}

fn head(status: u16, headers: &[String], length: usize) -> String {
    let mut text = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n");
    for header in headers {
        text.push_str(&format!("{header}\r\n"));
    }
    text + "\r\n"
}

fn send(writer: &mut TcpStream, status: u16, headers: &[String], body: &[u8]) -> Option<()> {
    writer.write_all(head(status, headers, body.len()).as_bytes()).ok()?;
    writer.write_all(body).ok()?;
    writer.flush().ok()
}
