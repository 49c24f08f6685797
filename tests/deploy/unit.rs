//! A small reader of systemd units and environment files: sections, keys that repeat,
//! continued lines.

use std::collections::BTreeMap;

/// A unit: `section.key` to all its values in order.
#[derive(Debug)]
pub(crate) struct Unit(BTreeMap<String, Vec<String>>);

impl Unit {
    /// Reads a unit's text. Panics at a line that is none of a unit.
    pub(crate) fn read(text: &str) -> Self {
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with(['#', ';'])).collect();
        let joined = lines.join("\n").replace("\\\n", " ");
        let mut section = String::new();
        let mut values: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in joined.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no line of a unit: {line}"));
            assert!(!section.is_empty(), "before the first section: {line}");
            values.entry(format!("{section}.{key}")).or_default().push(value.to_owned());
        }
        Self(values)
    }

    /// All values of a service's key.
    pub(crate) fn service(&self, key: &str) -> &[String] {
        self.0.get(&format!("Service.{key}")).map_or(&[], Vec::as_slice)
    }

    /// A service's key that is there once.
    pub(crate) fn one(&self, key: &str) -> &str {
        let [value] = self.service(key) else { panic!("{key} is there {} times", self.service(key).len()) };
        value
    }

    /// The words of the command line.
    pub(crate) fn command(&self) -> Vec<String> {
        self.one("ExecStart").split_whitespace().map(str::to_owned).collect()
    }

    /// Name and file of each credential.
    pub(crate) fn credentials(&self) -> Vec<(String, String)> {
        let pair = |value: &String| {
            let (name, file) = value.split_once(':').unwrap_or_else(|| panic!("LoadCredential={value}"));
            (name.to_owned(), file.to_owned())
        };
        self.service("LoadCredential").iter().map(pair).collect()
    }
}

/// The variables of an environment file.
pub(crate) fn variables(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("no variable: {line}"));
        (name.to_owned(), value.to_owned())
    };
    lines.map(pair).collect()
}

#[test]
fn continued_lines_are_one_and_repeated_keys_are_kept() {
    let unit = Unit::read(
        "# why\n[Service]\nExecStart=/bin/a \\\n    --b=${C} \\\n    --d\nLoadCredential=x:/y\nLoadCredential=z:/w\n",
    );
    assert_eq!(unit.command(), ["/bin/a", "--b=${C}", "--d"]);
    assert_eq!(unit.credentials()[1], ("z".to_owned(), "/w".to_owned()));
    assert_eq!(unit.service("Restart"), &[] as &[String]);
}
