//! The `stratigraph` program: reads the command line and hands over to [`stratigraph::cli`].

fn main() -> std::process::ExitCode {
    stratigraph::cli::main()
}
