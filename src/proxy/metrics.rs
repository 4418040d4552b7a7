//! Every proxy metric: name, unit, labels, help. The only place that knows a metric name.
