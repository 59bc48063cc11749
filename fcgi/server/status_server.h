/* status_server: a process that answers on the FastCGI socket "status.sock", so that the master, which has
 * the secrets and may be root, reads nothing that a client sends. It runs in the sandbox as the workers'
 * user, and does not read the configuration: it requests each page from the master (status_page.h).
 *
 * The master starts, watches and replaces it like a worker. Of a worker's descriptors, it inherits all but
 * the files. */
#ifndef STATUS_SERVER_H
#define STATUS_SERVER_H

/* Runs until it has received TERM and closed its connections, or until the master exits. Returns the exit
 * status. The arguments are the slot of its counters, and "user", "log_level", "log_format" and "sandbox" of
 * the configuration, the last three as numbers. */
int status_server_main(char **args);

/* The number of these arguments. */
enum { STATUS_SERVER_ARGS = 5 };

#endif
