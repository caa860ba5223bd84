"""Ground: errors, files and paths, the machine, progress. Imports nothing of the package; everyone may import it.

Door: `errors.UserError`, `files.as_path`, `machine.cores`.
"""
