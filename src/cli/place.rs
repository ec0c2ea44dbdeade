//! Paths as a person gives them, made absolute.

use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::control::types::RawPath;

/// Makes a path absolute, with all links in it resolved but the last component, which is what is meant.
///
/// Nothing needs to be there any more: what lies below the deepest directory that exists is taken as
/// written.
pub fn meant(path: &Path) -> Result<RawPath, Failure> {
    Ok(RawPath(resolve(path)?))
}

fn resolve(path: &Path) -> Result<PathBuf, Failure> {
    let cannot = |why: &str| {
        Failure::new(Exit::Failed, format!("cannot use {}: {why}", path.display())).with_hint("check the spelling")
    };
    let absolute = std::path::absolute(path).map_err(|error| cannot(&error.to_string()))?;
    let Some(name) = absolute.file_name() else {
        // The root, or a path that ends in `..`.
        return absolute.canonicalize().map_err(|error| cannot(&error.to_string()));
    };
    let parent = absolute.parent().unwrap_or(Path::new("/"));
    for ancestor in parent.ancestors() {
        let Ok(real) = ancestor.canonicalize() else { continue };
        let rest = parent.strip_prefix(ancestor).unwrap_or(Path::new(""));
        if rest.components().any(|part| part == Component::ParentDir) {
            return Err(cannot(&format!("{} does not exist", parent.display())));
        }
        return Ok(real.join(rest).join(name));
    }
    Err(cannot("not even the root can be looked at"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_on_the_way_and_never_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("real")).unwrap();
        symlink("real", root.join("link")).unwrap();
        let check = |given: &str, meant: &str| assert_eq!(resolve(&root.join(given)).unwrap(), root.join(meant));
        check("link/file", "real/file");
        check("link", "link");
        check("link/gone/file", "real/gone/file");
        check("link/../link/x", "real/x");
        check("link/", "link");
        check("real/..", "");
        assert!(resolve(&root.join("gone/../x")).is_err());
    }
}
