//! Which projects of a list have a Dockerfile.

use super::super::Error;
use super::super::shares::Coverage;
use super::Dockerfiles;
use std::collections::BTreeSet;
use std::path::Path;

impl Dockerfiles {
    /// How many projects of a list have at least one Dockerfile under `rseng/`.
    ///
    /// The list is that of the Research Software Encyclopedia: a JSON object with a `uid` on each line,
    /// or the uid alone, `github/OWNER/REPOSITORY`. As hosts do, upper and lower case are not told apart.
    ///
    /// # Errors
    /// [`Error::Source`] if it cannot be read or a line names no project.
    pub fn coverage(&self, list: &Path) -> Result<Coverage, Error> {
        let refuse = |reason: String| Error::Source { path: list.to_owned(), reason };
        let text = std::fs::read_to_string(list).map_err(|e| refuse(e.to_string()))?;
        let mut projects = BTreeSet::new();
        for (row, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let project = project_of(line).ok_or_else(|| {
                refuse(format!(
                    "line {} names no project; expected HOST/OWNER/REPOSITORY or a JSON object with such a `uid`",
                    row + 1
                ))
            })?;
            projects.insert(project);
        }
        // The tree of Dockerfiles does not tell hosts apart.
        let names: BTreeSet<&str> = projects.iter().filter_map(|uid| Some(uid.split_once('/')?.1)).collect();
        let (mut found, mut others) = (BTreeSet::new(), BTreeSet::new());
        for (_, name) in self.names.iter().enumerate().filter(|(row, _)| self.is_read(*row)) {
            let Some((place, _)) = name.strip_prefix("rseng/").and_then(|name| name.rsplit_once('/')) else {
                continue;
            };
            let place = place.to_lowercase();
            // OWNER/REPOSITORY, or more groups on some hosts; what follows are directories of the project.
            let ends = place.match_indices('/').map(|(slash, _)| slash).skip(1).chain([place.len()]);
            let mut prefixes: Vec<&str> = ends.map(|end| &place[..end]).collect();
            prefixes.retain(|prefix| prefix.contains('/'));
            match prefixes.iter().rev().find(|prefix| names.contains(**prefix)) {
                Some(listed) => drop(found.insert((*listed).to_owned())),
                None => others.extend(prefixes.first().map(|prefix| (*prefix).to_owned())),
            }
        }
        Ok(Coverage {
            projects: projects.len() as u64,
            with_dockerfile: found.len() as u64,
            not_listed: others.len() as u64,
        })
    }
}

/// The uid of a project, HOST/OWNER/REPOSITORY or longer, in lower case.
fn project_of(line: &str) -> Option<String> {
    let line = line.trim();
    let uid = match line.starts_with('{') {
        true => serde_json::from_str::<serde_json::Value>(line).ok()?.get("uid")?.as_str()?.to_owned(),
        false => line.to_owned(),
    };
    let sound = uid.split('/').count() >= 3 && uid.split('/').all(|p| !p.is_empty());
    sound.then(|| uid.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::project_of;

    #[test]
    fn lines_name_projects() {
        assert_eq!(project_of("github/A/b "), Some("github/a/b".into()));
        assert_eq!(project_of(r#"{"uid": "gitlab/g/s/r", "url": "x"}"#), Some("gitlab/g/s/r".into()));
        for wrong in ["github/a", "a", r#"{"url": "x"}"#, "{", "/a/b", "github//b"] {
            assert_eq!(project_of(wrong), None, "{wrong}");
        }
    }
}
