/* status: what an operator asks the master - /healthz, /readyz, /metrics. */
#ifndef STATUS_H
#define STATUS_H

#include "fcgi.h"

struct health {
    int workers;       /* wanted */
    int workers_ready; /* that take requests */
    int workers_hung;  /* whose loop stands still */
};

void status_serve(const struct health *health, struct fcgi_request *client);

#endif
