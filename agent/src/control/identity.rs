//! Who this agent is to the control plane: a name that survives restarts and one that
//! doesn't.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use uuid::Uuid;

/// Holds the agent's id inside the data directory.
const FILE_NAME: &str = "agent-id";

/// Who this agent is. The same for all streams of one start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Stable over restarts.
    pub agent_id: String,
    /// Another one at each start.
    pub incarnation: String,
    /// The version of the program.
    pub build_version: String,
    /// The address at which apps reach the agent.
    pub advertise: String,
}

impl Identity {
    /// Reads the id from the data directory, or makes one and keeps it there. Blocks.
    ///
    /// # Errors
    /// If the directory can't be read or written.
    pub fn load(data_directory: &Path, advertise: String) -> io::Result<Self> {
        let path = data_directory.join(FILE_NAME);
        let agent_id = match fs::read_to_string(&path) {
            Ok(text) => match Uuid::parse_str(text.trim()) {
                Ok(id) => id,
                // Torn by a crash while it was made: nobody has seen it yet.
                Err(_) => create(data_directory, &path)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(data_directory, &path)?,
            Err(error) => return Err(error),
        };
        Ok(Self {
            agent_id: agent_id.to_string(),
            incarnation: Uuid::new_v4().to_string(),
            build_version: env!("CARGO_PKG_VERSION").to_owned(),
            advertise,
        })
    }
}

fn create(directory: &Path, path: &Path) -> io::Result<Uuid> {
    fs::create_dir_all(directory)?;
    let id = Uuid::new_v4();
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_survives_a_restart_and_the_incarnation_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("not/yet/there");
        let first = Identity::load(&data, String::new()).unwrap();
        let second = Identity::load(&data, String::new()).unwrap();
        assert_eq!(first.agent_id, second.agent_id);
        assert_ne!(first.incarnation, second.incarnation);
    }

    #[test]
    fn a_torn_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE_NAME), "3f0c").unwrap();
        let first = Identity::load(directory.path(), String::new()).unwrap();
        let second = Identity::load(directory.path(), String::new()).unwrap();
        assert_eq!(first.agent_id, second.agent_id);
    }
}
