//! The tags of a repository, page by page.

use super::{Error, Reference, Registry};
use reqwest::header::LINK;
use serde::Deserialize;
use std::collections::HashSet;

/// The longest page of tags that is read, in bytes: registries need not heed `n`.
const PAGE_LIMIT: u64 = 64 << 20;

/// So many pages without a new tag are the last ones, whatever they link to.
const IDLE_PAGES: u32 = 16;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Registry {
    /// All tags of the repository of `image`, in the registry's order (OCI distribution
    /// specification, "Listing Tags"). Follows `Link: <...>; rel="next"`; a link that
    /// was followed before ends the list, as do many pages without a new tag: some registries serve the
    /// same page for ever.
    ///
    /// # Errors
    /// All but [`Error::Reference`] and [`Error::Settings`].
    pub fn tags(&self, image: &Reference) -> Result<Vec<String>, Error> {
        let repository = image.repository();
        let what = format!("tags of {}/{repository}", image.registry());
        let protocol = |reason: &str| Error::Protocol { what: what.clone(), reason: reason.to_owned() };
        self.block_on(async {
            let mut tags = Vec::new();
            let (mut seen, mut followed, mut idle) = (HashSet::new(), HashSet::new(), 0);
            let mut path = format!("{repository}/tags/list?n=1000");
            loop {
                let answer = self.get_whole(image, &path, &what, &[], PAGE_LIMIT).await?;
                let mut links = answer.headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
                let next = links.find_map(next_page).map(str::to_owned);
                let page: Page = serde_json::from_slice(&answer.bytes)
                    .map_err(|_| protocol("the answer is no list of tags"))?;
                let before = tags.len();
                tags.extend(page.tags.unwrap_or_default().into_iter().filter(|t| seen.insert(t.clone())));
                idle = if tags.len() > before { 0 } else { idle + 1 };
                let new = |next: &String| idle < IDLE_PAGES && followed.insert(next.clone());
                let Some(next) = next.filter(new) else { return Ok(tags) };
                path = within(&next, repository)
                    .ok_or_else(|| protocol("the next page is not of the same repository"))?;
            }
        })
    }
}

/// The target with `rel="next"` of a `Link` header, which may hold several links (RFC 8288).
fn next_page(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some((_, link)) = rest.split_once('<') {
        let (target, parameters) = link.split_once('>')?;
        // Up to the comma before the next link: one within quotes is part of a parameter.
        let mut quoted = false;
        let end = parameters.find(|c| {
            quoted ^= c == '"';
            c == ',' && !quoted
        });
        let (own, others) = parameters.split_at(end.unwrap_or(parameters.len()));
        let is_next = |p: &str| p.trim().replace('"', "").eq_ignore_ascii_case("rel=next");
        if own.split(';').any(is_next) {
            return Some(target);
        }
        rest = others;
    }
    None
}

/// A link as a path below `/v2/`. Only the path and the query are taken from it, so that it cannot
/// lead to another host.
fn within(link: &str, repository: &str) -> Option<String> {
    let (_, path) = link.split_once("/v2/")?;
    path.starts_with(&format!("{repository}/tags/list")).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_within_the_repository() {
        let link = r#"</v2/lab/tool/tags/list?last=b&n=2>; rel="next""#;
        let next = next_page(link).unwrap();
        assert_eq!(within(next, "lab/tool").as_deref(), Some("lab/tool/tags/list?last=b&n=2"));
        assert_eq!(
            within("https://elsewhere.example/v2/lab/tool/tags/list?n=1", "lab/tool").as_deref(),
            Some("lab/tool/tags/list?n=1")
        );
        assert_eq!(within("/v2/other/tags/list", "lab/tool"), None);
        assert_eq!(next_page("</v2/x>; rel=prev"), None);
        assert_eq!(next_page("rel=next"), None);
        let several = r#"</v2/x?last=0>; title="a, b"; rel="prev", </v2/x?last=2>;rel=NEXT"#;
        assert_eq!(next_page(several), Some("/v2/x?last=2"));
        assert_eq!(next_page(r#"</v2/x>; rel="prev", </v2/y>"#), None);
    }
}
