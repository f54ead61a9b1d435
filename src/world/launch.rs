//! How the process was started: alone, or as one of several ranks.

/// What the environment says about the launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// True if a launcher started several ranks that can find each other through MPI.
    pub several: bool,
    /// Tasks that Slurm started, if it says so.
    pub slurm_tasks: Option<usize>,
    /// Tasks of the job step that this process belongs to; none in the batch script itself.
    pub step_tasks: Option<usize>,
    /// Ranks on this node, if the launcher says so.
    pub local_ranks: Option<usize>,
}

/// Reads the variables of OpenMPI's `mpirun`, PMI launchers and Slurm.
///
/// `mpirun -n 1` and a plain process are one process: MPI is not initialised for them, which
/// saves some 300 ms.
pub fn launch(get: impl Fn(&str) -> Option<String>) -> Launch {
    let number = |name: &str| get(name).and_then(|v| v.trim().parse::<usize>().ok());
    let any_size = get("STRATIGRAPH_ANY_SIZE").is_some();
    let slurm_tasks = number("SLURM_NTASKS").filter(|_| !any_size);
    let step_tasks = number("SLURM_STEP_NUM_TASKS").filter(|_| !any_size);
    let size = number("OMPI_COMM_WORLD_SIZE").or_else(|| number("PMI_SIZE"));
    // `srun --mpi=pmix` gives a PMIx rank, but no size.
    let pmix = get("PMIX_RANK").is_some() && number("SLURM_NTASKS").is_some_and(|n| n > 1);
    let several = size.map_or(pmix, |n| n > 1);
    Launch { several, slurm_tasks, step_tasks, local_ranks: number("OMPI_COMM_WORLD_LOCAL_SIZE") }
}

/// The terminal that is the standard error of the launcher, our parent. None if our own standard
/// error does not lead to it, because it was redirected, or if the parent is no launcher.
pub fn launcher_terminal() -> Option<std::fs::File> {
    use std::os::unix::fs::FileTypeExt;
    let is_pipe = std::fs::metadata("/proc/self/fd/2").is_ok_and(|about| about.file_type().is_fifo());
    let parent = std::os::unix::process::parent_id();
    let name = std::fs::read_to_string(format!("/proc/{parent}/comm")).ok()?;
    let is_launcher = ["mpirun", "mpiexec", "orterun", "prterun"].contains(&name.trim());
    if !is_pipe || !is_launcher {
        return None;
    }
    let path = format!("/proc/{parent}/fd/2");
    let terminal = std::fs::File::options().read(true).write(true).open(path).ok()?;
    std::io::IsTerminal::is_terminal(&terminal).then_some(terminal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Launch {
        launch(|name| variables.iter().find(|v| v.0 == name).map(|v| v.1.to_owned()))
    }

    #[test]
    fn launchers_are_told_apart() {
        assert!(!of(&[]).several);
        assert!(!of(&[("OMPI_COMM_WORLD_SIZE", "1")]).several);
        assert!(of(&[("OMPI_COMM_WORLD_SIZE", "2")]).several);
        assert!(of(&[("PMI_SIZE", "3"), ("PMI_RANK", "0")]).several);
        assert!(of(&[("PMIX_RANK", "0"), ("SLURM_NTASKS", "2")]).several);
        assert!(!of(&[("PMIX_RANK", "0"), ("SLURM_NTASKS", "1")]).several);
        let lost = of(&[("SLURM_NTASKS", "4"), ("SLURM_PROCID", "2")]);
        assert_eq!((lost.several, lost.slurm_tasks), (false, Some(4)));
        assert_eq!(of(&[("SLURM_NTASKS", "4"), ("STRATIGRAPH_ANY_SIZE", "1")]).slurm_tasks, None);
    }
}
