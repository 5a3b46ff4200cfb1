//! The runtime as a program; see the library.

fn main() {
    let args: Result<Vec<String>, _> = std::env::args_os().map(|a| a.into_string()).collect();
    let code = match args {
        Ok(args) => match biga_oci::own::protect(&args) {
            Ok(()) => biga_oci::main(args.into_iter().skip(1).collect()),
            Err(e) => {
                eprintln!("biga oci: {e}");
                1
            }
        },
        Err(odd) => {
            eprintln!("biga oci: {odd:?} is not UTF-8");
            1
        }
    };
    std::process::exit(code);
}
