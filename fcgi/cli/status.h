/* status: taskproxy --status, which asks the running taskproxy for its status page, without a web server. */
#ifndef STATUS_H
#define STATUS_H

/* The exit status of the process. */
enum status_end {
    STATUS_READY = 0,
    STATUS_TROUBLED = 1, /* degraded or not ready */
    STATUS_UNKNOWN = 2   /* taskproxy cannot be reached, or sends no status; or wrong usage */
};

/* Reads only "socket_dir" from the configuration at `conf_path`, and prints the page. */
enum status_end status_show(const char *conf_path);

#endif
