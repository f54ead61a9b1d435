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
        let mut found = BTreeSet::new();
        for (_, name) in self.names.iter().enumerate().filter(|(row, _)| self.is_read(*row)) {
            let parts: Vec<&str> = name.split('/').collect();
            if let ["rseng", owner, repository, _, ..] = parts[..] {
                found.insert(format!("{owner}/{repository}").to_lowercase());
            }
        }
        Ok(Coverage {
            projects: projects.len() as u64,
            with_dockerfile: found.intersection(&projects).count() as u64,
            not_listed: found.difference(&projects).count() as u64,
        })
    }
}

/// The owner and name of a project, without the host.
fn project_of(line: &str) -> Option<String> {
    let line = line.trim();
    let uid = match line.starts_with('{') {
        true => serde_json::from_str::<serde_json::Value>(line).ok()?.get("uid")?.as_str()?.to_owned(),
        false => line.to_owned(),
    };
    let (host, project) = uid.split_once('/')?;
    let sound =
        !host.is_empty() && project.split('/').count() >= 2 && project.split('/').all(|p| !p.is_empty());
    sound.then(|| project.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::project_of;

    #[test]
    fn lines_name_projects() {
        assert_eq!(project_of("github/A/b "), Some("a/b".into()));
        assert_eq!(project_of(r#"{"uid": "gitlab/g/s/r", "url": "x"}"#), Some("g/s/r".into()));
        for wrong in ["github/a", "a", r#"{"url": "x"}"#, "{", "/a/b", "github//b"] {
            assert_eq!(project_of(wrong), None, "{wrong}");
        }
    }
}
