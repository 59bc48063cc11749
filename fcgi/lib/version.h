/* version: the version of this program. */
#ifndef VERSION_H
#define VERSION_H

#define TASKPROXY_VERSION "0.2"

#endif
