/* status: what an operator asks the master - /healthz, /readyz, /metrics, /status. */
#ifndef STATUS_H
#define STATUS_H

#include "net/fcgi.h"
#include "server/health.h"

/*  /healthz  this process lives
 *  /readyz   200 while at least one worker takes requests; what is wrong all the same, as JSON
 *  /metrics  for Prometheus
 *  /status   all on one screen: JSON, or plain text for ?format=text or Accept: text/plain  */
void status_serve(const struct health *health, struct fcgi_request *client);

#endif
