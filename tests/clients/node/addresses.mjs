// Where the servers are that the driver started, and what all clients ask of them.
export const REAL = process.env.CLIENTS_REAL;
export const SCRIPTED = process.env.CLIENTS_SCRIPTED;
export const SLOW = process.env.CLIENTS_SLOW;
export const SLOWLY = 'The answer took a while.';
export const MODEL = 'smollm2-135m-instruct';
export const WEATHER = {
  name: 'get_weather',
  description: 'The weather in a city',
  parameters: { type: 'object', properties: { location: { type: 'string' } }, required: ['location'] },
};
